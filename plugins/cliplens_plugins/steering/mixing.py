"""Mix a prompt with a reference picture by modality class, and score the pictures without a human.

The control of Yan et al. (arXiv 2502.14888): z = z_prompt + alpha mask (z_reference - z_prompt), where the mask keeps
one class of latents: ImgD, TextD, CrossD, or all. The control of a class is a set of as many living latents, drawn at
random. An independent judge compares every picture with its own prompt and with the reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image

from cliplens.contracts import Judge
from cliplens.statistics import mean_interval
from cliplens_plugins.steering.figures import INTERVAL, Rows
from cliplens_plugins.steering.readers import judge_of_pictures, pictures_of, words_of
from cliplens_plugins.steering.selection import CLASSES

RANDOM = "random, as many as "
"""Beginning of the name of a class's control."""
REFERENCE = "cosine with the reference"
_CHANGE, _BEYOND = "change of the ", "beyond random: "


def mixed_latents(classes: Sequence[Any] | Shaped[np.ndarray, " latent"], seed: int = 0) -> dict[str, list[int]]:
    """Return the latents to mix in, by name: each class, as many random latents beside it, and all.

    A class without latents is left out.

    >>> list(mixed_latents(["ImgD", "ImgD", "CrossD", "dead"]).items())[2:]
    [('CrossD', [2]), ('random, as many as CrossD', [0]), ('all', [0, 1, 2])]

    Args:
        classes: the class of each latent; other values than ImgD, TextD and CrossD are never mixed in.
        seed: seed of the random draws.
    """
    given = np.asarray(classes, dtype=object)
    members = {name: [int(k) for k in np.flatnonzero(given == name)] for name in CLASSES}
    everything = sorted(k for latents in members.values() for k in latents)
    rng = np.random.default_rng(seed)
    found: dict[str, list[int]] = {}
    for name, latents in members.items():
        if latents:
            found[name] = latents
            found[RANDOM + name] = sorted(rng.choice(everything, len(latents), replace=False).tolist())
    return {**found, "all": everything}


@dataclass(frozen=True)
class Mixed:
    """Pictures of one set of latents: one column per alpha, the same samples in each."""

    latents: int
    columns: Sequence[Sequence[Image.Image]]


def scored(
    judge: str,
    mixed: Mapping[str, Mixed],
    alphas: Sequence[float],
    targets: Mapping[str, Sequence[Image.Image | str]],
) -> Rows:
    """Return one row per set of latents and alpha, with cosines by the judge and their 95 % bootstrap intervals.

    Each row has the mean cosine with every target, its change from alpha 0, and how far that change exceeds the change
    by the random set of equal size. Differences are paired. Samples that differ only in the seed are averaged first, if
    there are several prompts, pictures or references.

    Args:
        judge: spec of a judge, as in `cliplens.registry.judge`.
        mixed: pictures by name, as `mixed_latents` names them.
        alphas: alpha of each column; 0 must be one of them.
        targets: pictures or words to compare with, by name: the prompts, the pictures that the pipeline was given, the
            references. Sample n is compared with number n modulo their count.

    Raises:
        InputError: the judge does not embed both images and words in one space.
    """
    eye = judge_of_pictures(judge)
    embedded = {f"cosine with the {name}": _embedded(eye, given, judge) for name, given in targets.items()}
    zero = list(alphas).index(0.0)
    cosines = {
        name: [_cosines(pictures_of(eye, column, judge), embedded) for column in one.columns]
        for name, one in mixed.items()
    }
    rows: Rows = []
    for name, by_alpha in cosines.items():
        for alpha, found in zip(alphas, by_alpha, strict=True):
            row: dict[str, Any] = {"class": name, "latents": mixed[name].latents, "alpha": alpha}
            n = list(alphas).index(alpha)
            for figure, values in found.items():
                change = values - by_alpha[zero][figure]
                row |= _with_interval(figure, values, ".3f") | _with_interval(_CHANGE + figure, change, "+.3f")
                beside = cosines.get(RANDOM + name)
                if beside is not None:
                    by_random = beside[n][figure] - beside[zero][figure]
                    row |= _with_interval(_BEYOND + figure, change - by_random, "+.3f")
            rows.append(row)
    return rows


def moved(measured: Mapping[str, Rows], latents: Mapping[str, int]) -> Rows:
    """Return one row per set of latents and alpha without a judge: how far the pictures moved from alpha 0."""
    figure = "picture moved"
    return [
        {"class": name, "latents": latents[name], "alpha": row["dose"], figure: row[figure]}
        | {figure + INTERVAL: row.get(figure + INTERVAL, "one sample")}
        for name, rows in measured.items()
        for row in rows
    ]


def grids(rows: Rows) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield title, heads and lines of a table of classes and alphas for each figure of `scored`."""
    alphas = list(dict.fromkeys(row["alpha"] for row in rows))
    figures = list(dict.fromkeys(name for row in rows for name in row if name + INTERVAL in row))
    for figure in figures:
        shown = [a for a in alphas if a != 0] if figure.startswith((_CHANGE, _BEYOND)) else alphas
        cells = {(row["class"], row["alpha"]): _cell(row, figure) for row in rows if figure in row}
        counts = {row["class"]: row["latents"] for row in rows if figure in row}
        lines = [[f"{name} ({count})", *(cells[name, alpha] for alpha in shown)] for name, count in counts.items()]
        title = figure[0].upper() + figure[1:]
        yield title, ["latents mixed in", *(f"alpha {alpha:g}" for alpha in shown)], lines


def _cell(row: Mapping[str, Any], figure: str) -> str:
    spec = "+.3f" if figure.startswith((_CHANGE, _BEYOND)) else ".3f"
    return f"{row[figure]:{spec}} ({row[figure + INTERVAL]})"


def _embedded(eye: Judge, given: Sequence[Any], spec: str) -> Float[torch.Tensor, "target d"]:
    """Return the embeddings of words and pictures, in their order."""
    return torch.cat([(words_of if isinstance(one, str) else pictures_of)(eye, [one], spec) for one in given])


def _cosines(
    pictures: Float[torch.Tensor, "sample d"], targets: Mapping[str, Float[torch.Tensor, "_ d"]]
) -> dict[str, Float[np.ndarray, " unit"]]:
    """Return the cosines with each target: averaged over the seeds if there are several of one target, else per sample.

    The samples of a seed stand together.
    """
    count = max(len(given) for given in targets.values())
    own = torch.arange(len(pictures))
    values = {name: (pictures * given[own % len(given)]).sum(-1) for name, given in targets.items()}
    return {name: _per_target(v.double().cpu().numpy(), count) for name, v in values.items()}


def _per_target(values: Float[np.ndarray, " sample"], count: int) -> Float[np.ndarray, " unit"]:
    return values.reshape(-1, count).mean(0) if count > 1 else values


def _with_interval(name: str, values: Float[np.ndarray, " unit"], spec: str) -> dict[str, Any]:
    mean, low, high = mean_interval(values)
    shown = f"{low:{spec}} to {high:{spec}}" if len(values) > 1 else "one sample"
    return {name: mean, name + INTERVAL: shown}
