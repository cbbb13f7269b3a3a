"""Measure contributions: Shapley values of the classes, and removal of one class compared with random sets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary
from cliplens.sites import MODALITIES, Modality
from cliplens.statistics import mean_interval
from cliplens.studies import Baseline, LatentGroups, ScoredClasses, embed_without, matched_sets
from cliplens_plugins.contribution.shapley import coalitions, shapley_values
from cliplens_plugins.contribution.tasks import Problem, Task

ERROR = "error term"
COMPARED = ("ImgD", "TextD", "CrossD")
Towers = Literal["image", "text", "both"]
TOWERS: Mapping[Towers, tuple[Modality, ...]] = {"image": ("image",), "text": ("text",), "both": ("image", "text")}
Row = dict[str, Any]
_Values = Float[np.ndarray, "case item"]


@dataclass(frozen=True)
class Contribution:
    """The tables of a study. Each row is about one task, one choice of towers and one player."""

    shapley: tuple[Row, ...]
    """Shapley values: `value` with `low` and `high` (bootstrap over test items). If class draws were given, also
    `classes_low` and `classes_high` (over draws of the pairs that the classes were computed from)."""
    removal: tuple[Row, ...]
    """Removal of one class: `drop` of the task with its interval, the drops with matched random sets instead, and the
    `percentile` of the class among these. `random_overlap` is the share of random latents that belong to the class; if
    it is near 1, the random sets are no control and the percentile has no meaning."""
    totals: tuple[Row, ...]
    """The task with all players kept (`all`) and with all removed (`none`), and the sum of the Shapley values."""


def contribution(
    clip: HookedCLIP,
    dictionary: Dictionary,
    scored: ScoredClasses,
    problems: Sequence[Problem],
    *,
    baseline: Baseline = "mean",
    controls: int = 20,
    class_draws: Sequence[LatentGroups] = (),
    towers: Sequence[Towers] = tuple(TOWERS),
    seed: int = 0,
    forward_batch: int = 64,
) -> Contribution:
    """Measure how much each modality class of latents contributes to tasks.

    The players are the classes, the dead latents and the error term of the dictionary. The value of a set of players is
    the result of the task when only they are kept and the others are replaced by their mean or by 0. This is done in
    the image tower, in the text tower, and in both.

    Args:
        clip: the model.
        dictionary: a dictionary of sites of both towers.
        scored: the class and firing rate of each latent.
        problems: inputs with their tasks.
        baseline: replacement of removed parts, "mean" or "zero".
        controls: number of random sets per class, with its size and similar firing rates.
        class_draws: classes computed from resampled pairs, for an interval over the choice of pairs.
        towers: the towers in which players are removed: "image", "text", "both".
        seed: seed of the random sets.
        forward_batch: samples per forward pass.

    Returns:
        The tables. Values have the unit of the task: a share for retrieval and zero-shot, nats for the loss.

    Source: ours; the question is that of Yan et al., arXiv 2502.14888, and Dhimoila et al., arXiv 2602.06218.
    """
    groups = LatentGroups.from_classes(scored.classes)
    sets = {name: matched_sets(groups.of(name), scored.rates, controls, seed=seed) for name in COMPARED}
    shapley: list[Row] = []
    removal: list[Row] = []
    totals: list[Row] = []
    for problem in problems:
        how: dict[str, Any] = {"baseline": baseline, "forward_batch": forward_batch}
        values = dict(_values(clip, dictionary, groups, sets, problem, towers=towers, **how))
        drawn = [dict(_values(clip, dictionary, g, {}, problem, towers=("both",), **how)) for g in class_draws]
        for (task, where), of_case in values.items():
            here = {"task": task, "towers": where}
            again = [_by_name(g, d[task, where]) for g, d in zip(class_draws, drawn, strict=True) if where == "both"]
            shapley += [{**here, **row} for row in _shapley_rows(groups, of_case, again)]
            removal += [{**here, **row} for row in _removal_rows(groups, of_case, controls, sets)]
            totals.append({**here, **_total(groups, of_case)})
    return Contribution(tuple(shapley), tuple(removal), tuple(totals))


def removal_verdicts(found: Contribution) -> list[Row]:
    """Return, for each task and choice of towers, whether removing CrossD costs most or least of the three classes.

    For "most" or "least", the intervals of the paired differences to both other classes must exclude 0.
    """
    rows = []
    places = dict.fromkeys((row["task"], row["towers"]) for row in found.removal)
    for task, towers in places:
        here = {r["player"]: r for r in found.removal if (r["task"], r["towers"]) == (task, towers)}
        against = [here[name]["crossd_less_this"] for name in COMPARED[:2]]
        most, least = all(low > 0 for _, low, _ in against), all(high < 0 for _, _, high in against)
        rows.append(
            {
                "task": task,
                "towers": towers,
                "removing CrossD hurts": "most" if most else "least" if least else "neither most nor least for sure",
                **{f"drop without {name}": here[name]["drop"] for name in COMPARED},
                **{f"percentile of {name}": here[name]["percentile"] for name in COMPARED},
            }
        )
    return rows


def _values(
    clip: HookedCLIP,
    dictionary: Dictionary,
    groups: LatentGroups,
    sets: Mapping[str, np.ndarray],
    problem: Problem,
    *,
    towers: Sequence[Towers],
    baseline: Baseline,
    forward_batch: int,
) -> Iterator[tuple[tuple[str, Towers], _Values]]:
    """Yield (task, towers) and the values [case, item]: first all subsets, as in `coalitions`, then the random sets."""
    parts = np.concatenate([groups.masks, *sets.values()])
    kept = coalitions(len(groups.names) + 1)
    n_players, n_random = kept.shape[1], len(parts) - len(groups.names)
    cases = np.zeros((len(kept) + n_random, len(parts) + 1), dtype=bool)
    cases[: len(kept), [*range(n_players - 1), len(parts)]] = ~kept
    cases[len(kept) + np.arange(n_random), n_players - 1 + np.arange(n_random)] = True
    given = {"image": (problem.images, problem.reference_images), "text": (problem.tokens, problem.reference_tokens)}
    embedded: dict[Modality, Tensor] = {
        m: embed_without(
            clip, dictionary, m, given[m][0], parts, cases, reference=given[m][1], baseline=baseline,
            forward_batch=forward_batch,
        )
        for m in MODALITIES
    }  # fmt: skip
    everything = len(kept) - 1
    for name, task in problem.tasks.items():
        for where in towers:
            at = [{m: case if m in TOWERS[where] else everything for m in MODALITIES} for case in range(len(cases))]
            yield (name, where), np.stack([_scored(task, *(embedded[m][case[m]] for m in MODALITIES)) for case in at])


def _scored(task: Task, image: Tensor, text: Tensor) -> Float[np.ndarray, " item"]:
    found = task(image, text)
    return np.atleast_1d(torch.as_tensor(found).double().cpu().numpy())


def _by_name(groups: LatentGroups, of_case: _Values) -> dict[str, float]:
    """Return the mean Shapley value per player."""
    return dict(zip((*groups.names, ERROR), shapley_values(_subsets(groups, of_case)).mean(1), strict=True))


def _subsets(groups: LatentGroups, of_case: _Values) -> Float[np.ndarray, "subset item"]:
    return of_case[: 2 ** (len(groups.names) + 1)]


def _shapley_rows(groups: LatentGroups, of_case: _Values, drawn: Sequence[Mapping[str, float]]) -> list[Row]:
    rows = []
    sizes = {**groups.sizes, ERROR: None}
    for name, values in zip((*groups.names, ERROR), shapley_values(_subsets(groups, of_case)), strict=True):
        value, low, high = _interval(values)
        row: Row = {"player": name, "latents": sizes[name], "value": value, "low": low, "high": high}
        if drawn:
            seen = [d.get(name, 0.0) for d in drawn]
            row["classes_low"], row["classes_high"] = (float(q) for q in np.quantile(seen, [0.025, 0.975]))
        rows.append(row)
    return rows


def _removal_rows(groups: LatentGroups, of_case: _Values, controls: int, sets: Mapping[str, np.ndarray]) -> list[Row]:
    subsets, random = _subsets(groups, of_case), of_case[len(_subsets(groups, of_case)) :]
    whole = subsets[-1]
    drops = {n: whole - subsets[len(subsets) - 1 - 2**i] for i, n in enumerate((*groups.names, ERROR))}
    of_set = whole.mean() - random.mean(1)
    rows = []
    for name, drop in drops.items():
        value, low, high = _interval(drop)
        row: Row = {"player": name, "drop": value, "low": low, "high": high}
        row["drop_per_latent"] = value / groups.sizes[name] if groups.sizes.get(name) else None
        if name in COMPARED:
            at = COMPARED.index(name) * controls
            row |= _against_random(value, of_set[at : at + controls])
            row["random_overlap"] = _overlap(sets[name], groups.of(name))
            row["crossd_less_this"] = _interval(drops["CrossD"] - drop)
        rows.append(row)
    return rows


def _against_random(value: float, of_set: Float[np.ndarray, " set"]) -> Row:
    if not len(of_set):
        return {"random_mean": None, "random_low": None, "random_high": None, "percentile": None}
    low, high = np.quantile(of_set, [0.025, 0.975])
    tied = np.isclose(of_set, value, rtol=0, atol=1e-12)
    below = float(((of_set < value) & ~tied).mean() + tied.mean() / 2)
    return {"random_mean": of_set.mean(), "random_low": low, "random_high": high, "percentile": 100 * below}


def _overlap(sets: Bool[np.ndarray, "draw d_sae"], of: Bool[np.ndarray, " d_sae"]) -> float | None:
    """Return the share of random latents that belong to the class itself."""
    return float(sets[:, of].sum() / sets.sum()) if sets.any() else None


def _total(groups: LatentGroups, of_case: _Values) -> Row:
    subsets = _subsets(groups, of_case)
    return {
        "all": float(subsets[-1].mean()),
        "none": float(subsets[0].mean()),
        "sum of Shapley values": float(shapley_values(subsets).mean(1).sum()),
        "items": subsets.shape[1],
    }


def _interval(values: Float[np.ndarray, " item"]) -> tuple[float, float, float]:
    """Return mean and bootstrap interval over items; the limits are nan if there is only one item."""
    if len(values) == 1:
        return float(values[0]), float("nan"), float("nan")
    return mean_interval(values, draws=1000)
