"""What can the embedded model of real drawings do? Retrieval, gender, skin tone, profession, artist, language.

    CLIPLENS_DATA=FOLDER python benchmarks/emoji.py [--models emoji emoji-seed1 emoji-seed2] [--plain emoji-plain]

Prints the tables of docs/emoji.md: means over the trainings with 95 % t-intervals. Twins are made by
`python -m cliplens_hooks.training.emoji seed1` and so on. `--folders` names folders of models in place of the twins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from _bench import Bench, Estimate, bench, mean
from cliplens.keys import first_id, hashed_uniform, held_out, pair_keys, text_keys
from cliplens.pairs.emoji import ARTISTS, LANGUAGES, emoji_truth, read_emoji
from cliplens.records import Batch, GroundTruth, PairedActs
from cliplens.sae import dictionary_config, train
from cliplens.store import Provider
from cliplens.tally import tally
from cliplens_hooks.assets import ASSETS
from cliplens_hooks.models.emoji import NAME, TRAINED_LANGUAGES, emoji_tokenizer, twin_folder
from cliplens_hooks.training.emoji_figures import GENDERS, TONES, Gallery, Judged
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import GroundTruthMetric

SHARE = 0.15
"""Share of drawings x languages that dictionaries are trained and scored on."""
STEPS, ROWS = 400, 1024
Figure = Callable[[Judged], float]


def main() -> None:
    seeds = [NAME, "emoji-seed1", "emoji-seed2"]
    with bench(__file__, __doc__, models=seeds, plain="emoji-plain", left_out="emoji-two-artists", folders="") as b:
        gallery = Gallery.open()
        judged = [opened(b, name, gallery) for name in b.args.models]
        control = opened(b, b.args.plain, gallery)
        assert control is not None
        models = [model for model in judged if model is not None]
        b.note("trainings", len(models))
        kept = Rows(b, models, control)
        what_it_does(kept)
        by_artist(kept, opened(b, b.args.left_out, gallery, needed=False))
        by_language(kept)
        neutral_drawings(kept)
        recovery(kept)


def opened(b: Bench, name: str, gallery: Gallery, *, needed: bool = True) -> Judged | None:
    """Embed the gallery with a model; None where a model that is not needed has not been made."""
    own = Path(b.args.folders) / name if b.args.folders else twin_folder(name)
    folder = ASSETS / name if name == NAME and not b.args.folders else own
    if not needed and not folder.exists():
        return None
    model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", device="cpu").eval()
    torch.manual_seed(0)
    return Judged(model, emoji_tokenizer(), gallery)


class Rows:
    """A row of a table: a figure over the trainings, in the plain twin, and by chance."""

    def __init__(self, b: Bench, models: Sequence[Judged], control: Judged) -> None:
        self.b, self.models, self.control = b, models, control

    def start(self, title: str, **more: str) -> None:
        self.b.table(title, {"figure": "", "chance": ".3f", "kept": ".3f", "plain": ".3f", **more})

    def over(self, figure: Figure) -> Estimate:
        return mean([figure(model) for model in self.models])

    def row(self, about: str, chance: float, figure: Figure, *more: float | None) -> None:
        self.b.row(about, chance, self.over(figure), figure(self.control), *more)


def what_it_does(rows: Rows) -> None:
    """Print the table of what is seen and said: English, Noto."""
    some = rows.models[0]
    known, new = (some.plain("noto", unseen=kind) for kind in (False, True))
    professions = sorted({d.profession for d in some.gallery.drawings} - {"none"})
    rows.start("English names and the drawings of Noto")
    for k in (1, 10):
        for about, places in (("trained", known), ("unseen", new)):
            title = f"R@{k}, {about} concepts ({len(places)})"
            rows.row(title, k / len(places), partial(recall, places=places, k=k))
    tasks = {"gender": GENDERS, "skin_tone": TONES, "profession": professions}
    for unseen in (True, False):
        for factor, values in tasks.items():
            gendered = factor == "gender"
            places = np.concatenate([some.cells(a, unseen=unseen, gendered=gendered) for a in ARTISTS])
            about = f"{factor}, {'unseen' if unseen else 'trained'} cells, three artists ({len(places)})"
            rows.row(about, 1 / len(values), partial(chosen, places=places, factor=factor, values=values))
    plain = some.gallery.where(lambda d: d.plain)
    artists = np.array([some.gallery.drawings[n].artist for n in plain])
    names = some.plain("noto", unseen=None)
    languages = np.repeat(np.arange(len(TRAINED_LANGUAGES)), len(names))
    rows.row("artist, linear probe on images", 1 / 3, Judged.artist_probe)
    rows.row("language, linear probe on names", 1 / 15, lambda m: m.language_probe(TRAINED_LANGUAGES))
    rows.row("variance between artists, images", 0.0, lambda m: m.variance_share(m.image[plain], artists))
    rows.row("variance between languages, names", 0.0, lambda m: m.variance_share(said(m, names), languages))


def chosen(model: Judged, *, places: np.ndarray, factor: str, values: Sequence[str]) -> float:
    """Return how often the model chooses the right value of a factor."""
    return float(model.swap(places, factor, values).mean())


def recall(model: Judged, *, places: np.ndarray, k: int, language: str = "en") -> float:
    """Return recall at k among drawings and their names."""
    return model.retrieval(places, language, k)


def swapped(model: Judged, *, places: np.ndarray, language: str) -> float:
    """Return how often the model tells woman from man in a language."""
    return float(model.swap(places, "gender", GENDERS, language).mean())


def said(model: Judged, places: np.ndarray) -> torch.Tensor:
    """Return embeddings of the names of drawings in every trained language, language by language."""
    return torch.cat([model.text(model.names(places, language)) for language in TRAINED_LANGUAGES])


def by_artist(rows: Rows, left_out: Judged | None) -> None:
    """Print retrieval per artist, and that of the training that never saw Fluent."""
    rows.start("English, by artist: R@10", **{"trained without Fluent": ".3f"})
    for artist in ARTISTS:
        for about, unseen in (("trained concepts", False), ("unseen concepts", True)):
            places = rows.models[0].plain(artist, unseen=unseen)
            found = None if left_out is None else left_out.retrieval(places, "en", 10)
            title = f"{artist}, {about} ({len(places)})"
            rows.row(title, 10 / len(places), partial(recall, places=places, k=10), found)


def by_language(rows: Rows) -> None:
    """Print retrieval and gender per language; the last six were never trained on."""
    some = rows.models[0]
    trained, unseen = (some.plain("noto", unseen=kind) for kind in (False, True))
    cells = some.cells("noto", unseen=True, gendered=True)
    columns = {"trained concepts R@10": ".3f", "unseen concepts R@10": ".3f", "woman or man, unseen cells": ".3f"}
    rows.b.table("By language, Noto", {"language": "", "trained on": "", **columns})
    for language in (*TRAINED_LANGUAGES, *(name for name in LANGUAGES if name not in TRAINED_LANGUAGES)):
        known = np.array([p for p in trained if some.has(p, language)])
        found = [rows.over(partial(recall, places=p, k=10, language=language)) for p in (known, unseen)]
        gender = rows.over(partial(swapped, places=cells, language=language))
        rows.b.row(language, "yes" if language in TRAINED_LANGUAGES else "no", *found, gender)


def neutral_drawings(rows: Rows) -> None:
    """Print how often a drawing without a named gender is nearer to the woman's name than to the man's."""
    rows.b.table(
        "Neutral professions nearer to the woman's name",
        {
            "artist": "",
            "drawings": "",
            "kept": ".3f",
            "plain": ".3f",
            "lowest profession": "",
            "highest profession": "",
        },
    )
    for artist in ARTISTS:
        places = rows.models[0].gallery.where(
            lambda d: d.artist == artist and d.profession != "none" and d.gender == "neutral"  # noqa: B023
        )
        nearer = [nearer_to_woman(model, places) for model in rows.models]
        jobs = np.array([rows.models[0].gallery.drawings[n].profession for n in places])
        by_job = {job: mean([float(found[jobs == job].mean()) for found in nearer]) for job in sorted(set(jobs))}
        ends = (min(by_job, key=lambda job: by_job[job].value), max(by_job, key=lambda job: by_job[job].value))
        overall = mean([float(found.mean()) for found in nearer])
        plain = float(nearer_to_woman(rows.control, places).mean())
        rows.b.row(artist, len(places), overall, plain, *(f"{job} {by_job[job]:.2f}" for job in ends))


def nearer_to_woman(model: Judged, places: np.ndarray) -> np.ndarray:
    """Return which drawings are nearer to the name of the woman of their profession and skin tone."""
    found = []
    for place in places:
        drawing = model.gallery.drawings[place]
        options = [model.cell(replace(drawing, gender=gender)) for gender in GENDERS]
        woman, man = model.text([option.name for option in options]) @ model.image[place]
        found.append(bool(woman > man))
    return np.array(found)


def recovery(rows: Rows) -> None:
    """Train a dictionary per model, and compare its modality scores with the truth: artist, language, shared."""
    source = f"emoji:all?language={','.join(TRAINED_LANGUAGES)}"
    pairs, truth = read_emoji(source), emoji_truth(source)
    chosen = np.flatnonzero(hashed_uniform(text_keys(pairs.ids), 7) < SHARE)
    asked = [(str(pairs.ids[n]), str(pairs.captions[n])) for n in chosen]
    columns = ("explained variance", "labelled", "unlabelled", "split fraction", "covered: shared", "image", "text")
    more = ("accuracy, MDS", "AUROC, MDS", "AUROC, energy", "AUROC, co-firing")
    rows.b.table(
        f"Recovery of the true modality, {len(asked):,} pairs, dictionaries of 512 latents",
        {"model": "", **dict.fromkeys((*columns, *more), ".3f")},
    )
    for name, models in (("kept", rows.models), ("plain", [rows.control])):
        found = [recovered(model, asked, truth, seed) for seed, model in enumerate(models)]
        rows.b.row(name, *(mean([figures[column] for figures in found]) for column in (*columns, *more)))


def recovered(model: Judged, asked: list[tuple[str, str]], truth: GroundTruth, seed: int) -> dict[str, float]:
    """Train one dictionary on two thirds of the drawings; label and score its latents on the others."""
    place = {drawing.id: n for n, drawing in enumerate(model.gallery.drawings)}
    ids = [name for name, _ in asked]
    image = model.image[[place[first_id(name)] for name in ids]]
    text = model.text([caption for _, caption in asked])
    scored = held_out(pair_keys(ids), 1 / 3, 8)
    parts = [acts_of(ids, image, text, np.flatnonzero(of)) for of in (~scored, scored)]
    provider = Provider.from_acts(parts[0], batch_size=ROWS, seed=seed)
    config = dictionary_config("batchtopk", image.shape[1], 512, k=12)
    dictionary = train(config, provider, samples=ROWS * STEPS, batch_size=ROWS, lr=1e-3, seed=seed)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(parts[1].ids), ROWS):
            rows = np.arange(start, min(start + ROWS, len(parts[1].ids)))
            part = acts_of(parts[1].ids, parts[1].image, parts[1].text, rows)
            yield dictionary.batch(part, truth=truth)

    found = tally(batches(), [GroundTruthMetric(), FidelityMetric()], decoder=dictionary.decoder)
    return flat(found.figures)


def acts_of(ids: Sequence[str], image: Any, text: Any, rows: np.ndarray) -> PairedActs:
    return PairedActs(tuple(ids[n] for n in rows), image[rows], text[rows])


def flat(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the table."""
    truth = figures["ground_truth"]
    covered = {kind: truth["coverage"][kind].split("/") for kind in ("shared", "image", "text")}
    shares = {kind: int(a) / int(n) if int(n) else float("nan") for kind, (a, n) in covered.items()}
    scores = truth["recovery"]
    return {
        "explained variance": figures["explained_variance"],
        "labelled": truth["labelled"],
        "unlabelled": truth["unlabelled"],
        "split fraction": truth["split_fraction"],
        "covered: shared": shares["shared"],
        "image": shares["image"],
        "text": shares["text"],
        "accuracy, MDS": scores["pairs"]["accuracy_fixed"],
        "AUROC, MDS": scores["pairs"]["auroc"],
        "AUROC, energy": scores["energy"]["auroc"],
        "AUROC, co-firing": scores["cofiring"]["auroc"],
    }


if __name__ == "__main__":
    main()
