"""The study of one run: its tasks, its controls, and what came out, as a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cliplens.errors import CliplensError, InputError
from cliplens.hooked import TEMPLATES
from cliplens.pairs import read_labels, tokenised
from cliplens.pictures import open_picture
from cliplens.records import PairedActs
from cliplens.run import OpenedRun
from cliplens.shapes import Tokens
from cliplens.studies import (
    Baseline,
    ClassRule,
    LatentGroups,
    Study,
    classes_of_table,
    read_class_folders,
    resampled_classes,
    twin_of,
    with_interval,
)
from cliplens_plugins.contribution.mm_shap import mm_shap
from cliplens_plugins.contribution.study import COMPARED, ERROR, Contribution, contribution, removal_verdicts
from cliplens_plugins.contribution.tasks import Problem, Task, matching_problem, zero_shot_problem

ACTS = 2048
"""Pairs that classes of resamples and of the untrained dictionary are made from."""
MM_SHAP_PAIRS = 24
SAME = 0.8
"""Share of random latents inside the class from which they are no control."""
WORLD = "world:"
WORLD_FACTORS = ("shape", "colour")
_PID = ("pid_redundancy", "pid_unique_image", "pid_unique_text", "pid_synergy", "pid_shuffled")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study of a run is asked for."""

    pairs: int = 512
    labels: str | None = None
    """Column of labels of the pairs, or a factor of the world."""
    labelled: Path | None = None
    """Folder of pictures with one subfolder per class."""
    function: str | None = None
    """MODULE:NAME of a further task over the pairs."""
    rule: ClassRule = "modality"
    baseline: Baseline = "mean"
    controls: int = 20
    resamples: int = 20
    seed: int = 0


def study_of_run(run: OpenedRun, asked: Asked) -> Study:
    """Return the record of the study of a run.

    Raises:
        InputError: the run has one modality, no scores, or no such labels.
    """
    scored = classes_of_table(run.table, asked.rule)
    images, tokens = run.inputs(asked.pairs)
    problems = [matching_problem(run.clip, images, tokens, more=_given(asked.function))]
    problems += _zero_shot(run, asked, tokens)
    acts, notes = _acts(run)
    how: dict[str, Any] = {"baseline": asked.baseline, "seed": asked.seed, "forward_batch": run.asked.forward_batch}
    draws = [] if acts is None else resampled_classes(run.dictionary, acts, asked.resamples, rule=asked.rule)
    drawn = [LatentGroups.from_classes(d.classes) for d in draws]
    found = contribution(run.clip, run.dictionary, scored, problems, controls=asked.controls, class_draws=drawn, **how)
    untrained = None
    if acts is not None:
        twin, classes = twin_of(run.dictionary, acts, rule=asked.rule, seed=asked.seed)
        untrained = contribution(run.clip, twin, classes, problems, controls=0, towers=("both",), **how)
    share = mm_shap(run.clip, images[:MM_SHAP_PAIRS], tokens[:MM_SHAP_PAIRS], side=_side(images), seed=asked.seed)
    return record(found, untrained, LatentGroups.from_classes(scored.classes), share.mean, _pid(run), asked, notes)


def record(
    found: Contribution,
    untrained: Contribution | None,
    groups: LatentGroups,
    share: tuple[float, float, float],
    pid: Sequence[Mapping[str, Any]],
    asked: Asked,
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
        {"share of the caption": with_interval(*share), "pairs": MM_SHAP_PAIRS}
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
    "A Shapley value is the mean gain of the task when a class is added to the others, over all orders. The values of "
    "a row sum to the difference between the task with everything and with nothing kept.",
    "Intervals over test items say nothing about another dictionary: repeat the study with other seeds.",
    "The error term is what the dictionary does not reconstruct. What it carries belongs to no class.",
    "PID asks about single latents and MM-SHAP about inputs. Their figures need not agree with Shapley values.",
)


def _findings(found: Contribution, untrained: Contribution | None) -> list[str]:
    of_both = [row for row in found.shapley if row["towers"] == "both"]
    says = [_error_share(found)]
    for name in COMPARED:
        rows = [r for r in found.removal if r["towers"] == "both" and r["player"] == name]
        if any((r["random_overlap"] or 0.0) > SAME for r in rows):
            says.append(f"{name} holds nearly all living latents, so random latents are no control for it.")
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
            f"{len(dict.fromkeys(r['task'] for r in of_both))} tasks: there the order alone is no evidence."
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
    return f"Share of each task that the error term carries, so that no class explains it: {', '.join(shares)}."


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


def _pid(run: OpenedRun) -> list[dict[str, Any]]:
    table = run.table
    if any(name not in table for name in _PID):
        return []
    classes = table["modality"].astype(str)
    rows = []
    for name in COMPARED:
        of = classes == name
        known = {c.removeprefix("pid_").replace("_", " "): table[c][of].astype(float) for c in _PID}
        rows.append({"class": name, **{k: float(np.nanmean(v)) if of.any() else None for k, v in known.items()}})
    return rows


def _side(images: torch.Tensor) -> int:
    """Return the largest number of patches per side up to 4 that divides the picture evenly."""
    return next(side for side in (4, 3, 2, 1) if not images.shape[-1] % side and not images.shape[-2] % side)


def _acts(run: OpenedRun) -> tuple[PairedActs | None, list[str]]:
    try:
        return run.scored_acts(ACTS), []
    except CliplensError as error:
        return None, [f"No control by an untrained dictionary and no resamples of the classes: {error}"]


def _given(function: str | None) -> dict[str, Task]:
    if function is None:
        return {}
    module, _, name = function.partition(":")
    try:
        task = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            expected="--function MODULE:NAME of a function of image and text embeddings",
            found=f"{function!r} ({error})",
            fix="name a function that Python can import, such as mytasks:score in mytasks.py",
        ) from error
    return {name: task}


def _zero_shot(run: OpenedRun, asked: Asked, captions: Tokens) -> list[Problem]:
    problems = []
    world = run.asked.pairs.startswith(WORLD)
    columns = [asked.labels] if asked.labels else WORLD_FACTORS if world else ()
    for column in columns:
        problems.append(_of_world(run, asked, column, captions) if world else _of_column(run, asked, column, captions))
    if asked.labelled is not None:
        problems.append(_of_folder(run, asked, captions))
    return problems


def _of_world(run: OpenedRun, asked: Asked, factor: str, captions: Tokens) -> Problem:
    from cliplens.world import ground_truth, value_sentences

    sample = run.sample(asked.pairs)
    sentences = value_sentences(factor)
    values = torch.as_tensor(ground_truth(sample.ids).factors[factor])
    return _problem(run, sample.images, values, [s for of in sentences for s in of], len(sentences), factor, captions)


def _of_column(run: OpenedRun, asked: Asked, column: str, captions: Tokens) -> Problem:
    a = run.asked
    labels = read_labels(
        a.pairs, column, image_column=a.image_column, id_column=a.id_column, image_root=a.image_root,
        delimiter=a.delimiter, quoting=a.quoting or "auto",
    )  # fmt: skip
    sample = run.sample(asked.pairs)
    known = labels.values
    kept = [n for n, i in enumerate(sample.ids) if labels[i]]
    values = torch.tensor([known.index(str(labels[sample.ids[n]])) for n in kept])
    assert sample.images is not None
    sentences = [t.replace("{}", value) for value in known for t in TEMPLATES]
    return _problem(run, sample.images[kept], values, sentences, len(known), column, captions)


def _of_folder(run: OpenedRun, asked: Asked, captions: Tokens) -> Problem:
    assert asked.labelled is not None
    labelled = read_class_folders(asked.labelled)
    preprocess: Any = run.clip.preprocess
    images = torch.stack([preprocess(open_picture(path)) for path in labelled.paths])
    sentences = [t.replace("{}", name) for name in labelled.classes for t in TEMPLATES]
    values = torch.as_tensor(labelled.labels)
    return _problem(run, images, values, sentences, len(labelled.classes), asked.labelled.name, captions)


def _problem(
    run: OpenedRun,
    images: Any,
    values: torch.Tensor,
    sentences: Sequence[str],
    classes: int,
    name: str,
    captions: Tokens,
) -> Problem:
    tokenizer: Any = run.clip.tokenizer
    tokens = tokenised(sentences, tokenizer).tokens
    return zero_shot_problem(
        images.to(run.clip.dtype), values, tokens, classes=classes, name=f"zero-shot {name}", reference_tokens=captions
    )
