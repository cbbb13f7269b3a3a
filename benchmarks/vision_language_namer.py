"""Do names by a vision-language model come out right? A tiny model trained for the purpose, on the embedded world.

    python benchmarks/vision_language_namer.py [--pairs 20480] [--seeds 4 5] [--models 0 1]

A model in the layout of Idefics 3 is trained from scratch on pictures and captions of other scenes: its tower to tell
the words of a caption, its language part to answer the question of the namers. What it answers in training is a word
(or two) that the captions of the shown pairs share. It never sees the scored pairs, a latent, or a factor. It is
written to a folder and asked by the namer `transformers`, as any other model is.

It tells nothing about real models and their weights, except that pictures, question and answer arrive whole. The truth,
and what a right name is, are those of `naming.py`.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from _bench import Bench, bench
from _naming.counts import BANDS, Counted, Named, count_right, finished
from _naming.tables import agreement, cell, every_band
from _vision_language.training import trained
from cliplens.contracts import Namer
from cliplens.naming import name_agreement
from cliplens.run import run
from cliplens.settings import Settings
from cliplens.world import world_pairs
from cliplens_plugins.autointerp import ApartNamer, CaptionNamer, NeighbourNamer, VocabularyNamer
from cliplens_plugins.autointerp.local import TransformersNamer
from naming import CLASSES, answers

WORLD = 77
"""Seed of the world whose scenes the model is trained on; those scored have seed 0."""
WORDS: tuple[Namer, ...] = (VocabularyNamer(), CaptionNamer(), NeighbourNamer(), ApartNamer())
SOURCES = ("images", "captions", "final", "final, shuffled")


def model_at(folder: Path, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train the model of a seed, unless the folder holds it. Return what it cost."""
    kept = folder / "training_cost.json"
    if not kept.exists():
        cost = trained(
            folder, pairs=args.trained_on, world_seed=WORLD, seed=seed, tower=args.tower, language=args.language
        )
        kept.write_text(json.dumps(cost))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def tables(b: Bench, found: dict[str, Counted]) -> None:
    """Print the right names by kind of factor, and agreement and cost."""
    for kind in CLASSES.values():
        title = f"Right names of latents for {kind} factors: right / all, 95 % interval (Wilson); unnamed"
        b.table(title, ["namer", "named from", *(says for _, _, says in BANDS), "all"])
        for shown, counted in found.items():
            for source in SOURCES:
                name = next(iter(counted.named))
                bands = [counted.right.get((name, source, kind, says), [0, 0, 0]) for _, _, says in BANDS]
                b.row(shown, source, *(cell(*c) for c in (*bands, every_band(counted, name, source, kind))))
    heads = {"namer": "", "same latents, both named": "d", "same name": ".3f", "other latents": ".3f"}
    b.table("Agreement between two dictionaries, and cost", heads | {"named": "d", "CPU ms per latent": ".1f"})
    for shown, counted in found.items():
        runs = next(iter(counted.named.values()))
        agree, apart = agreement(runs)
        named = sum(name is not None for one in runs for name in one.names)
        asked = sum(int((one.decoder != 0).any(1).sum()) for one in runs)
        cost = 1e3 * sum(one.seconds for one in runs) / asked
        b.row(shown, len(agree), *(float(np.mean(v)) if v else float("nan") for v in (agree, apart)), named, cost)


def between_models(b: Bench, runs: list[list[Named]]) -> None:
    """Print how often two models trained from other seeds give the same latent the same name."""
    b.table(
        "Agreement between two models on the same latents", {"dictionary": "", "both named": "d", "same name": ".3f"}
    )
    for one, other in zip(*runs[:2], strict=True):
        both = [(x, y) for x, y in zip(one.names, other.names, strict=True) if x and y]
        share = float(np.mean([name_agreement(x, y) for x, y in both])) if both else float("nan")
        b.row(f"seed {one.seed}", len(both), share)


def main() -> None:
    options: dict[str, Any] = {
        "pairs": 20480,
        "seeds": [4, 5],
        "models": [0, 1],
        "trained_on": 24000,
        "tower": 60,
        "language": 150,
    }
    options["kept"] = ("", "folder that keeps trained models; those in it are not trained again")
    with bench(__file__, __doc__, **options) as b, tempfile.TemporaryDirectory() as folder:
        place, a = Path(folder), b.args
        os.environ["CLIPLENS_ENDPOINT_CACHE"] = str(place / "answers")
        known = set(world_pairs(a.trained_on, seed=WORLD).ids) & set(world_pairs(a.pairs).ids)
        assert not known, "the model must not see a scored scene"
        models = Path(a.kept) if a.kept else place
        b.table("Training", {"model": "", "parameters": "d", "CPU seconds": ".0f", "loss of the answers": ".3f"})
        for seed in a.models:
            cost = model_at(models / f"model{seed}", seed, a)
            b.row(f"seed {seed}", int(cost["parameters"]), cost["CPU seconds"], cost["loss of the answers"])
        found = {namer.name: Counted() for namer in WORDS}
        found |= {f"transformers, model {seed}": Counted() for seed in a.models}
        for seed in a.seeds:
            context, evidence, table = finished(
                run(Settings(pairs=f"world:{a.pairs}", seed=seed), place / f"run{seed}")
            )
            del context
            for namer in WORDS:
                count = found[namer.name]
                count.named[namer.name].append(count_right(namer, evidence, answers(table), count, seed))
            for model in a.models:
                os.environ["CLIPLENS_LOCAL_MODEL"] = str(models / f"model{model}")
                namer, count = TransformersNamer(give_up_after=10_000), found[f"transformers, model {model}"]
                count.named[namer.name].append(count_right(namer, evidence, answers(table), count, seed))
        tables(b, found)
        if len(a.models) > 1:
            between_models(b, [found[f"transformers, model {seed}"].named["transformers"] for seed in a.models])


if __name__ == "__main__":
    main()
