"""Controls of the recovery: labels shuffled, an untrained dictionary, a frozen decoder, an untrained model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from _bench import Bench, mean
from cliplens.statistics import auroc
from cliplens_plugins.modality import classify_fixed

CONTROLS = ("untrained dictionary", "frozen decoder", "untrained model")
"""Controls with another dictionary. The last shuffles the entries of every weight tensor of the model."""
_DRAWS = 200
_HEADS = ("explained variance", "labelled", "accuracy, MDS", "AUROC, MDS", "AUROC, energy", "AUROC, co-firing")


def shuffled_labels(classes: np.ndarray, scores: Mapping[str, np.ndarray], seed: int) -> dict[str, dict[str, float]]:
    """Return the recovery by each score where labels are shuffled among the labelled latents: a mean over 200 draws."""
    g = np.random.default_rng(seed)
    found: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        known = (classes != "") & ~np.isnan(score)
        even, called = (score if name == "cofiring" else -np.abs(score - 0.5))[known], classify_fixed(score)[known]
        drawn = [g.permutation(classes[known]) for _ in range(_DRAWS)] if known.any() else []
        right = [float((called == labels).mean()) for labels in drawn]
        apart = [auroc(even[labels == "CrossD"], even[labels != "CrossD"]) for labels in drawn]
        found[name] = {
            "accuracy_fixed": float(np.mean(right)) if right and name != "cofiring" else float("nan"),
            "auroc": float(np.mean(apart)) if apart else float("nan"),
        }
    return found


def control_table(
    b: Bench, trained: Mapping[str, Sequence[Any]], made: Mapping[tuple[str, str], Sequence[Any]]
) -> None:
    """Print the recovery of each model beside that of its controls."""
    b.table("Controls of the recovery", {"model": "", "dictionary": "", **dict.fromkeys(_HEADS, ".3f")})
    for model, found in trained.items():
        b.row(model, "trained", *_cells(found, "recovery"))
        b.row(model, "trained, labels shuffled", *_cells(found, "shuffled"))
        for (of_model, control), others in made.items():
            if of_model == model:
                b.row(model, control, *_cells(others, "recovery"))


def _cells(found: Sequence[Mapping[str, Any]], of: str) -> list[Any]:
    cells = [mean([f["explained_variance"] for f in found]), mean([float(f["labelled"]) for f in found])]
    wanted = (("pairs", "accuracy_fixed"), ("pairs", "auroc"), ("energy", "auroc"), ("cofiring", "auroc"))
    return cells + [mean([f[of][score][figure] for f in found]) for score, figure in wanted]
