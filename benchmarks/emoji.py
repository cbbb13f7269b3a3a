"""What can the embedded model of real drawings do? Retrieval, gender, skin tone, profession, artist, language.

    CLIPLENS_DATA=FOLDER python benchmarks/emoji.py [--models emoji emoji-seed1 emoji-seed2] [--plain emoji-plain]

Prints the tables of docs/emoji.md: means over the trainings with 95 % t-intervals. Twins are made by
`python -m cliplens_hooks.training.emoji seed1` and so on. `--folders` names folders of models in place of the twins.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch

from _bench import Bench, Estimate, bench, mean
from cliplens.pairs.emoji import ARTISTS, LANGUAGES, is_unseen_concept
from cliplens_hooks.assets import ASSETS
from cliplens_hooks.models.emoji import NAME, TRAINED_LANGUAGES, emoji_tokenizer, twin_folder
from cliplens_hooks.training.emoji_figures import GENDERS, TONES, Gallery, Judged

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
        b.note("drawings without a part in training", int(sum(map(is_unseen_concept, gallery.drawings))))


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


if __name__ == "__main__":
    main()
