"""Select latents by name, by modality class, or by their correlation with a label."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.errors import InputError, unknown_name
from cliplens.records import LatentTable, SparseCodes
from cliplens.run.find import NAME_COLUMNS, UNNAMED, name_matches

CLASSES = ("ImgD", "TextD", "CrossD")


def by_name(table: LatentTable, name: str) -> list[int]:
    """Return the latents with a name or synonym, highest `name_score` first; letter case is ignored.

    A name such as "red / crimson" is found by "red" too. `OpenedRun.find` also weighs evidence and reach.

    Raises:
        UnknownNameError: no latent has the name; similar names are listed.
        InputError: the name is empty or "unnamed".
    """
    matches, _ = name_matches(table, name)
    found = [int(k) for k in np.flatnonzero(matches == 1.0)]
    if found:
        return _best_first(table, found)
    known = {str(n) for column in NAME_COLUMNS if column in table for n in table[column] if n and n != UNNAMED}
    raise unknown_name("latent", name, known)


def _best_first(table: LatentTable, latents: list[int]) -> list[int]:
    if "name_score" not in table:
        return latents
    scores = np.nan_to_num(np.asarray(table["name_score"], dtype=float), nan=-np.inf)
    return sorted(latents, key=lambda k: (-scores[k], k))


def by_class(
    table: LatentTable, wanted: str, *, column: str = "modality", seed: int = 0, count: int | None = None
) -> list[int]:
    """Return the living latents of a modality class: "ImgD", "TextD", "CrossD", "all", or "random".

    Args:
        table: latent table with the column `column`.
        wanted: the class; "random" draws `count` living latents, as the control for a class of that size.
        column: column of classes: "modality" (fixed cuts), "modality_paper" or "modality_significant".
        seed: seed of the random draw.
        count: number of random latents.

    Raises:
        UnknownNameError: there is no such class.
        InputError: `wanted` is "random" and `count` is None.
    """
    if wanted not in (*CLASSES, "all", "random"):
        raise unknown_name("modality class", wanted, (*CLASSES, "all", "random"))
    classes = np.asarray(table[column], dtype=object)
    living = np.flatnonzero(np.isin(classes, CLASSES))
    if wanted == "all":
        return [int(k) for k in living]
    if wanted == "random":
        if count is None:
            raise InputError(
                expected="the number of latents to draw at random", found="no count", fix="pass for example count=20"
            )
        drawn = np.random.default_rng(seed).choice(living, size=min(count, len(living)), replace=False)
        return sorted(int(k) for k in drawn)
    return [int(k) for k in living if classes[k] == wanted]


def label_correlation(codes: SparseCodes, positive: Bool[np.ndarray, " row"]) -> Float[np.ndarray, " d_sae"]:
    """Return the Pearson correlation of each latent's code with a binary label, in [-1, 1]; nan if either is constant.

    Select latents on one split of the data and score them on another.
    """
    label = torch.from_numpy(np.asarray(positive)).to(torch.float64)
    values = codes.values.double().cpu()
    rows, latents = codes.rows.cpu(), codes.latents.cpu()
    total, squares, with_label = (
        torch.zeros(codes.d_sae, dtype=torch.float64).index_add_(0, latents, v)
        for v in (values, values**2, values * label[rows])
    )
    n = codes.n_rows
    covariance = with_label / n - total / n * label.mean()
    spread = ((squares / n - (total / n) ** 2).clamp_min(0) * label.var(unbiased=False)).sqrt()
    found: Float[np.ndarray, " d_sae"] = torch.where(spread > 0, covariance / spread, torch.nan).numpy()
    return found


def best_latents(
    codes: SparseCodes, values: Int[np.ndarray, " row"], n_values: int, *, least: float = 0.0
) -> list[int | None]:
    """Return, for each value of a factor, the latent with the highest correlation; None if it is below `least`."""
    best: list[int | None] = []
    for value in range(n_values):
        found = np.nan_to_num(label_correlation(codes, values == value), nan=-1.0)
        latent = int(found.argmax())
        best.append(latent if found[latent] >= least else None)
    return best


def typical_level(codes: SparseCodes) -> Float[np.ndarray, " d_sae"]:
    """Return the mean code of each latent over the rows on which it fires, the unit of a dose; nan if it never does."""
    ones = torch.ones_like(codes.values, dtype=torch.float64)
    empty = torch.zeros(codes.d_sae, dtype=torch.float64, device=codes.values.device)
    count = empty.index_add(0, codes.latents, ones)
    total: Tensor = empty.index_add(0, codes.latents, codes.values.double())
    level: Float[np.ndarray, " d_sae"] = (total / count).cpu().numpy()
    return level
