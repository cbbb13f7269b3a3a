"""Compare modality classes between kinds of words, and latents between languages, on dictionaries of three seeds.

    CLIPLENS_DATA=FOLDER python benchmarks/words.py [--sources world coco500 emoji] [--resume FIGURES.jsonl]

Trains dictionaries on final embeddings: the world's model on pairs of the world, OpenAI's ViT-B/16 on 500 pairs of COCO
(stored embeddings), the model of real drawings on emoji in fifteen languages. Prints, per kind of words, the share of
its latents with each modality class, as the mean over seeds with an interval, beside shuffled kinds, random latents of
the same number and firing rates, and an untrained dictionary; then what the tokenizer makes of each language, how many
latents are bound to it, and how much the same latents fire on the same thing. A source whose data are missing is left
out, and named.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cliplens
from _bench import Bench, Estimate, bench, mean
from cliplens.keys import first_id, hashed_uniform, text_keys
from cliplens.records import PairedActs
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.statistics import mean_share_interval
from cliplens.store import Provider
from cliplens.studies import ScoredClasses, score_classes, twin_of
from cliplens_hooks.models.emoji import TRAINED_LANGUAGES
from cliplens_plugins.words.kinds import KindShare, kind_shares, split_by_picture
from cliplens_plugins.words.languages import bound_latents, same_thing
from cliplens_plugins.words.presence import LatentWords, latent_words, words_of
from cliplens_plugins.words.taggers import open_tagger
from cliplens_plugins.words.tokens import coverage

WORLD, EMOJI, SHARE = 3072, 700, 0.25
"""Pairs of the world; emoji per artist, and the share of drawings x languages that is taken."""
BATCH = 64
SIZES = {"world": (256, 8), "coco500": (512, 16), "emoji": (512, 12)}
"""Latents, and latents that fire per row."""
STEPS, ROWS = 300, 512


@dataclass(frozen=True, eq=False)
class Source:
    """Embeddings of pairs, with captions and their languages."""

    acts: PairedActs
    captions: Sequence[str]
    languages: Sequence[str]


def embedded(model: str, source: str, kept: Callable[[Sequence[str]], Any] | None = None) -> Source:
    """Return the embeddings of some pairs of a source by a model; each picture is encoded once."""
    clip, pairs = cliplens.load(model, device="cpu"), cliplens.read_pairs(source)
    chosen = np.arange(len(pairs)) if kept is None else np.flatnonzero(kept(pairs.ids))
    ids, captions = [pairs.id_at(n) for n in chosen], [str(pairs.caption_at(n)) for n in chosen]
    first = {first_id(i): int(n) for i, n in zip(ids, chosen, strict=True)}
    place = {picture: n for n, picture in enumerate(first)}
    preprocess, tokenizer = clip.preprocess, clip.tokenizer
    assert preprocess is not None and tokenizer is not None  # noqa: PT018
    at = list(first.values())
    with torch.no_grad():
        parts = [at[n : n + BATCH] for n in range(0, len(at), BATCH)]
        seen = [clip.encode_image(torch.stack([preprocess(pairs[n].image) for n in p]), normalize=True) for p in parts]
        said = [
            clip.encode_text(tokenizer(captions[n : n + 4 * BATCH]), normalize=True)
            for n in range(0, len(captions), 4 * BATCH)
        ]
    image = torch.cat(seen)[[place[first_id(i)] for i in ids]]
    return Source(PairedActs(tuple(ids), image, torch.cat(said)), captions, ["en"] * len(ids))


def coco500() -> Source | None:
    """Return OpenAI's embeddings of 500 pairs of COCO, where they are."""
    folder = Path(os.environ.get("CLIPLENS_DATA", "data")) / "coco500"
    if not (folder / "coco500_clip_vitb16.npz").exists():
        return None
    held = np.load(folder / "coco500_clip_vitb16.npz", allow_pickle=False)
    listed = json.loads((folder / "coco500.json").read_text())
    ids = tuple(str(entry["image_id"]) for entry in listed)
    acts = PairedActs(ids, torch.tensor(held["image"]), torch.tensor(held["text"]))
    return Source(acts, [str(entry["caption"]) for entry in listed], ["en"] * len(ids))


def emoji() -> Source | None:
    """Return the drawings of three artists with names in fifteen languages, where they are."""
    if "CLIPLENS_DATA" not in os.environ:
        return None
    from cliplens.pairs import emoji_truth

    source = f"emoji:all?language={','.join(TRAINED_LANGUAGES)}&limit={EMOJI}"
    truth = emoji_truth(source)
    language = dict(zip(truth.ids, truth.factors["language"], strict=True))
    english = truth.values["language"].index("en")

    def kept(ids: Sequence[str]) -> Any:
        """All names in English, and some in the other languages."""
        of = np.array([language[i] == english for i in ids])
        return of | (hashed_uniform(text_keys(list(ids)), 7) < SHARE)

    found = embedded("emoji", source, kept)
    return Source(found.acts, found.captions, [truth.values["language"][language[i]] for i in found.acts.ids])


SOURCES: dict[str, Callable[[], Source | None]] = {
    "world": lambda: embedded("world", f"world:{WORLD}"),
    "coco500": coco500,
    "emoji": emoji,
}


def measured(name: str, source: Source, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the figures of a source: shares per seed, of an untrained dictionary, and of languages."""
    english = np.array([language == "en" for language in source.languages])
    words = words_of([c for c, of in zip(source.captions, english, strict=True) if of], open_tagger(None))
    pictures = [first_id(i) for i in source.acts.ids]
    chosen_on = split_by_picture(pictures)

    def shares(dictionary: Dictionary, scored: ScoredClasses, seed: int) -> tuple[LatentWords, list[KindShare]]:
        image, text = dense(dictionary, source.acts)
        found = latent_words(image[english], text[english], words.present, chosen_on[english])
        return found, kind_shares(found, words.kinds, scored, seed=seed)

    trained, untrained, languages = [], [], []
    for seed in seeds:
        dictionary = fitted(name, source.acts, seed)
        scored = score_classes(dictionary, source.acts)
        found, of = shares(dictionary, scored, seed)
        living = int(scored.alive.sum())
        trained.append({"living": living, "named": int((found.word >= 0).sum()), "kinds": [asdict(s) for s in of]})
        twin, classes = twin_of(dictionary, source.acts, seed=seed)
        untrained.append([asdict(s) for s in shares(twin, classes, seed)[1]])
        if len(set(source.languages)) > 1:
            languages.append(of_languages(dictionary, source, pictures, scored, seed))
    return {
        "captions": len(source.captions),
        "words": {kind: words.kinds.count(kind) for kind in words.kinds},
        "trained": trained,
        "untrained": untrained,
        "languages": languages,
    }


def of_languages(
    dictionary: Dictionary, source: Source, pictures: Sequence[str], scored: ScoredClasses, seed: int
) -> dict[str, Any]:
    """Return latents bound to a language, and the overlap of firing on the same picture's captions."""
    fires = dense(dictionary, source.acts)[1] > 0
    bound = bound_latents(fires, source.languages, seed=seed)
    of_class = [str(scored.classes[b.latent]) for b in bound if b.bound]
    return {
        "latents": len(bound),
        "bound": [asdict(b) for b in bound if b.bound],
        "of them TextD": of_class.count("TextD"),
        "same": [asdict(s) for s in same_thing(fires, source.languages, pictures, "en", seed=seed)],
    }


def fitted(name: str, acts: PairedActs, seed: int) -> Dictionary:
    """Train a dictionary on the embeddings of both modalities."""
    d_sae, k = SIZES[name]
    assert acts.image is not None
    provider = Provider.from_acts(acts, batch_size=ROWS, seed=seed)
    config = dictionary_config("batchtopk", acts.image.shape[1], d_sae, k=k)
    return train(config, provider, samples=ROWS * STEPS, batch_size=ROWS, lr=1e-3, seed=seed)


def dense(dictionary: Dictionary, acts: PairedActs) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of images and of captions."""
    codes = dictionary.encode(acts)
    assert codes.image is not None and codes.text is not None  # noqa: PT018
    return codes.image.dense().cpu().numpy(), codes.text.dense().cpu().numpy()


def print_kinds(b: Bench, name: str, found: dict[str, Any]) -> None:
    """Print one row per kind and class that latents of every seed stand for."""
    b.table(
        f"{name}: kinds of words",
        {
            "kind, class": "",
            "words": ".0f",
            "latents": ".0f",
            "share": ".2f",
            "shuffled kinds": "",
            "seeds beyond them": "",
            "random latents": ".2f",
            "untrained": ".2f",
        },
    )
    for n, first in enumerate(found["trained"][0]["kinds"]):
        rows = [one["kinds"][n] for one in found["trained"]]
        if not all(row["latents"] for row in rows):
            continue
        low, high = (float(np.mean([row[f"shuffled_{end}"] for row in rows])) for end in ("low", "high"))
        beyond = sum(row["p"] <= 0.05 for row in rows)
        columns = [mean([float(row[key]) for row in rows]) for key in ("words", "latents")]
        said = (f"{low:.2f} to {high:.2f}", f"{beyond} of {len(rows)}")
        random, control = share(rows, "random"), share([row[n] for row in found["untrained"]])
        b.row(f"{name}: {first['kind']}, {first['modality']}", *columns, share(rows), *said, random, control)
    b.note(f"{name}: living latents", [one["living"] for one in found["trained"]])
    b.note(f"{name}: latents that stand for a word", [one["named"] for one in found["trained"]])


def print_languages(b: Bench, name: str, found: dict[str, Any], cut: Sequence[dict[str, Any]]) -> None:
    """Print one row per language."""
    b.table(
        f"{name}: languages",
        {
            "language": "",
            "pieces per word": ".2f",
            "pieces per character": ".2f",
            "parts of characters": ".3f",
            "latents bound": ".1f",
            "same latents": ".2f",
            "another picture": ".2f",
        },
    )
    for row in cut:
        bound = [float(sum(x["language"] == row["language"] for x in one["bound"])) for one in found["languages"]]
        same = [next((s for s in one["same"] if s["language"] == row["language"]), None) for one in found["languages"]]
        overlap = [[float("nan") if s is None else s[key] for s in same] for key in ("overlap", "other")]
        numbers = [row[key] for key in ("pieces_per_word", "pieces_per_character", "broken")]
        b.row(row["language"], *numbers, not_below_0(mean(bound)), *map(mean, overlap))
    for key in ("latents", "of them TextD"):
        b.note(f"{name}: {key}", [one[key] for one in found["languages"]])
    b.note(f"{name}: bound to a language", [len(one["bound"]) for one in found["languages"]])


def share(rows: Sequence[dict[str, Any]], key: str = "share") -> Estimate:
    """Return the mean of a share of latents over seeds, with an interval that stays in [0, 1]."""
    shares, counts = (np.array([number(row[name]) for row in rows]) for name in (key, "latents"))
    return Estimate(*mean_share_interval(shares, counts))


def not_below_0(found: Estimate) -> Estimate:
    """Return the mean of counts with an interval that ends at 0, which costs no coverage."""
    return Estimate(found.value, max(found.low, 0.0), found.high)


def number(value: float | None) -> float:
    """Return a number; nan for None."""
    return float("nan") if value is None else float(value)


def kept(b: Bench, name: str) -> dict[str, Any] | None:
    """Return the figures of a source, from the file of --resume where they are; None without its data."""
    path = Path(b.args.resume) if b.args.resume else None
    lines = path.read_text().splitlines() if path and path.exists() else []
    for line in map(json.loads, lines):
        if line["source"] == name:
            return dict(line["figures"])
    source = SOURCES[name]()
    if source is None:
        return None
    found = measured(name, source, range(b.args.seeds))
    if len(set(source.languages)) > 1:
        texts = {
            x: [c for c, y in zip(source.captions, source.languages, strict=True) if x == y] for x in TRAINED_LANGUAGES
        }
        found["coverage"] = [asdict(c) for c in coverage(cliplens.load("emoji", device="cpu").tokenizer, texts)]
    if path:
        with path.open("a") as file:
            file.write(json.dumps({"source": name, "figures": found}) + "\n")
    return found


def main() -> None:
    """Print the tables of docs/words.md."""
    with bench(__file__, __doc__, sources=list(SOURCES), seeds=3, resume="") as b:
        figures = {name: found for name in b.args.sources if (found := kept(b, name))}
        missing = [name for name in b.args.sources if name not in figures]
        b.note("sources whose data are missing", ", ".join(missing) or "none")
        for name, found in figures.items():
            print_kinds(b, name, found)
        for name, found in figures.items():
            if found["languages"]:
                print_languages(b, name, found, found["coverage"])
        b.keep("sources", figures)


if __name__ == "__main__":
    main()
