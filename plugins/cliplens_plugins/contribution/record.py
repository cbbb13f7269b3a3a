"""Make the record of a finished study of contributions: findings in sentences, one table per question, notes."""

from collections.abc import Mapping, Sequence
from typing import Any

from cliplens.studies import LatentGroups, Study, with_interval
from cliplens_plugins.contribution.options import ContributionOptions
from cliplens_plugins.contribution.study import COMPARED, ERROR, Contribution, removal_verdicts

SAME = 0.8
"""If more than this share of the random latents belongs to the class, they are no control."""


def record(
    found: Contribution,
    untrained: Contribution | None,
    groups: LatentGroups,
    share: tuple[float, float, float],
    pid: Sequence[Mapping[str, Any]],
    asked: ContributionOptions,
    mm_shap_pairs: int,
    notes: Sequence[str] = (),
) -> Study:
    """Return the record of a finished study: findings first, then one table per question."""
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "Latents per class": [groups.sizes],
        "Does removing CrossD hurt most or least?": _both_first(removal_verdicts(found)),
        "Shapley value of each class (95 % over test items)": _wide(found),
        "Removal of one class, beside random latents of its size and firing rates": _removals(found),
    }
    if asked.resamples and any("classes_low" in row for row in found.shapley):
        tables["The same values over resamples of the pairs that made the classes (both towers)"] = _over_classes(found)
    if untrained is not None:
        tables["Shapley values with a dictionary that was never trained (both towers)"] = _wide(untrained)
    tables["Another question: what firing says of whether the pair is retrieved (PID, mean bits per latent)"] = pid
    tables["Another question: share of the caption in what the cosine rests on (MM-SHAP)"] = [
        {"share of the caption": with_interval(*share), "pairs": mm_shap_pairs}
    ]
    return Study(
        name="contribution",
        title="Which modality class carries a task",
        findings=_findings(found, untrained),
        tables=tables,
        notes=(*notes, *NOTES),
        settings=vars(asked),
        data={
            "shapley": found.shapley,
            "removal": found.removal,
            "totals": found.totals,
            "untrained": None if untrained is None else vars(untrained),
        },
    )


NOTES = (
    "A Shapley value is the gain of the task when a class is added to others, averaged over all orders. The values of "
    "a row sum to the difference between the task with everything kept and with everything removed.",
    "Intervals over test items do not cover another dictionary. Repeat the study with dictionaries of other seeds.",
    "The error term is the part of the activation that the dictionary does not reconstruct. It belongs to no class.",
    "PID measures single latents and MM-SHAP measures inputs. Their figures need not agree with the Shapley values.",
)


def _findings(found: Contribution, untrained: Contribution | None) -> list[str]:
    of_both = [row for row in found.shapley if row["towers"] == "both"]
    says = [_error_share(found)]
    for name in COMPARED:
        rows = [r for r in found.removal if r["towers"] == "both" and r["player"] == name]
        if any((r["random_overlap"] or 0.0) > SAME for r in rows):
            says.append(f"{name} contains nearly all living latents, so random latents are no control for it.")
            continue
        weak = [r["task"] for r in rows if r["percentile"] is not None and r["percentile"] < 97.5]
        if weak:
            says.append(
                f"{name}: removing it costs no more than removing random latents of the same number and firing rates "
                f"in {len(weak)} of {len(rows)} tasks ({', '.join(weak)})."
            )
    if untrained is not None:
        same = [t for t in dict.fromkeys(r["task"] for r in of_both) if _best(untrained, t) == _best(found, t)]
        says.append(
            f"A dictionary that was never trained puts the same class first in {len(same)} of "
            f"{len(dict.fromkeys(r['task'] for r in of_both))} tasks. There, the order of the classes is no evidence."
        )
    verdicts = [row for row in removal_verdicts(found) if row["towers"] == "both"]
    for says_so in dict.fromkeys(row["removing CrossD hurts"] for row in verdicts):
        of = [row["task"] for row in verdicts if row["removing CrossD hurts"] == says_so]
        says.append(f"Removing CrossD in both towers hurts {says_so} of the three classes: {', '.join(of)}.")
    return says


def _error_share(found: Contribution) -> str:
    shares = []
    for total in found.totals:
        if total["towers"] == "both" and total["all"] != total["none"]:
            value = _value(found, total["task"], ERROR)
            shares.append(f"{total['task']} {value / (total['all'] - total['none']):.0%}")
    return f"Share of each task that the error term carries, and no class: {', '.join(shares)}."


def _best(found: Contribution, task: str) -> str:
    return max(COMPARED, key=lambda name: _value(found, task, name))


def _value(found: Contribution, task: str, player: str) -> float:
    for row in found.shapley:
        if (row["task"], row["towers"], row["player"]) == (task, "both", player):
            return float(row["value"])
    return float("nan")


def _wide(found: Contribution) -> list[dict[str, Any]]:
    """Return one row per task and tower, one column per player; both towers first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for r in found.shapley:
        row = rows.setdefault((r["task"], r["towers"]), {"task": r["task"], "removed in": r["towers"]})
        row[r["player"]] = with_interval(r["value"], r["low"], r["high"])
    for t in found.totals:
        rows[t["task"], t["towers"]] |= {"all": t["all"], "none": t["none"]}
    return sorted(rows.values(), key=lambda row: row["removed in"] != "both")


def _both_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["towers"] != "both")


def _over_classes(found: Contribution) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for r in found.shapley:
        if "classes_low" in r:
            row = rows.setdefault(r["task"], {"task": r["task"]})
            row[r["player"]] = with_interval(r["value"], r["classes_low"], r["classes_high"])
    return list(rows.values())


def _removals(found: Contribution) -> list[dict[str, Any]]:
    return [
        {
            "task": r["task"],
            "removed in": r["towers"],
            "class": r["player"],
            "drop": with_interval(r["drop"], r["low"], r["high"]),
            "drop per latent": r["drop_per_latent"],
            "random sets": with_interval(r["random_mean"], r["random_low"], r["random_high"])
            if r.get("random_mean") is not None
            else None,
            "percentile": r.get("percentile"),
            "of them in the class": r.get("random_overlap"),
        }
        for r in found.removal
    ]
