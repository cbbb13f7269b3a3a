"""Which modality class carries a task: Shapley values, and removal beside random latents, on the embedded models.

    CLIPLENS_DATA=FOLDER python benchmarks/contribution.py --seeds 3

Trains a dictionary per model and seed: on pairs of the world, and for the model `emoji` on the drawings of three
artists (512 latents, no zero-shot task; left out where `CLIPLENS_DATA` is unset). Prints, for both towers together,
the drop of each task without each class, the mean drop without random latents of the same number and firing rates, and
the Shapley values beside those of a dictionary that was never trained. Intervals are t-intervals over seeds.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from _bench import Bench, bench, mean
from cliplens.cli import DEMO_SETTINGS
from cliplens.run import OpenedRun, run
from cliplens.settings import Settings
from cliplens_plugins.contribution.of_run import study_of_run
from cliplens_plugins.contribution.options import ContributionOptions

COMPARED = ("ImgD", "TextD", "CrossD")
PLAYERS = (*COMPARED, "dead", "error term")
DRAWINGS = {"pairs": "emoji:all", "d_sae": 512, "k": 12}
"""Settings of the model of real drawings, as on its page."""
KEYS = ("drop", "random_mean", "percentile", "random_overlap", "drop_per_latent")
REMOVAL = {
    "task": "",
    "class": "",
    "drop": ".3f",
    "random latents": ".3f",
    "percentile": ".0f",
    "of them in the class": ".2f",
    "per latent": ".4f",
}


def study(model: str, seed: int, pairs: int, world: int) -> dict[str, Any]:
    """Train, score and study one dictionary."""

    with tempfile.TemporaryDirectory() as folder:
        own = DRAWINGS if model == "emoji" else {"pairs": f"world:{world}"}
        asked = {**DEMO_SETTINGS, **own, "model": model, "seed": seed}
        made = run(Settings(**asked), Path(folder) / "run", until="name")
        found = study_of_run(OpenedRun(made), ContributionOptions(pairs=pairs, resamples=0, seed=seed))
    return dict(found.data)


def main(b: Bench) -> None:
    """Print a table of Shapley values, one of removals and one of the control per model."""
    for model in b.args.models:
        if model == "emoji" and "CLIPLENS_DATA" not in os.environ:
            b.note("emoji", "left out: CLIPLENS_DATA is unset")
            continue
        found = [study(model, seed, b.args.pairs, b.args.world) for seed in range(b.args.seeds)]
        tasks = list(dict.fromkeys(row["task"] for row in found[0]["shapley"]))
        b.table(f"{model}: removing one class in both towers", REMOVAL)
        for task in tasks:
            for name in COMPARED:
                rows = [_row(f["removal"], task, name) for f in found]
                b.row(task, name, *(mean([_number(r[key]) for r in rows]) for key in KEYS))
        b.table(
            f"{model}: Shapley values in both towers", {"task": "", "dictionary": "", **dict.fromkeys(PLAYERS, ".3f")}
        )
        for task in tasks:
            for label, tables in (("trained", found), ("never trained", [f["untrained"] for f in found])):
                values = [[_number(_row(t["shapley"], task, p)["value"]) for t in tables] for p in PLAYERS]
                b.row(task, label, *(mean(v) for v in values))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _row(rows: Any, task: str, player: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("value", *KEYS), np.nan)
    return next((r for r in rows if (r["task"], r["towers"], r["player"]) == (task, "both", player)), nothing)


if __name__ == "__main__":
    models = ["world", "world-plain", "emoji"]
    with bench(__file__, __doc__, models=models, seeds=3, pairs=512, world=12288) as found:
        main(found)
