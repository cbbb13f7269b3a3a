"""Do two dictionaries find the same latents? Hungarian matching between seeds, and duplicates within one.

Decoder rows of two dictionaries are paired so that the sum of cosines is largest (Paulo and Belrose, 2501.16615); the
mean cosine of pairs is the stability, given per modality class of the first dictionary too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from torch import Tensor

from cliplens.errors import MismatchError


@dataclass(frozen=True)
class Matching:
    """`partner[k]`: the other dictionary's latent paired with latent k (-1: none left); `cosine[k]`: how alike."""

    partner: Int[np.ndarray, " d_sae"]
    cosine: Float[np.ndarray, " d_sae"]


def matched(decoder: Float[Tensor, "latent d_in"], other: Float[Tensor, "other_latent d_in"]) -> Matching:
    """Pair the latents of two dictionaries one to one, by the cosine of their decoder rows.

    Returns:
        Partners and cosines, in [-1, 1]; -1 and nan where the other dictionary is smaller and none is left.
    """
    a, b = (torch.nn.functional.normalize(d.detach().double(), dim=1).cpu().numpy() for d in (decoder, other))
    alike = a @ b.T
    rows, columns = linear_sum_assignment(alike, maximize=True)
    partner, cosine = np.full(len(a), -1), np.full(len(a), np.nan)
    partner[rows], cosine[rows] = columns, alike[rows, columns]
    return Matching(partner, cosine)


def stability(
    decoder: Tensor, other: Tensor, classes: Sequence[str] | np.ndarray | None = None, *, alike: float = 0.7
) -> list[dict[str, str | float | int]]:
    """How much of one dictionary another finds again, in all and per class.

    Args:
        decoder: [d_sae, d_in].
        other: of another seed, of the same width.
        classes: a class per latent of the first, such as the column `modality`; dead latents had better be left out.
        alike: the cosine from which a latent counts as found again.

    Returns:
        Rows with `class`, `latents`, `mean_cosine` and `found_again`, the share above `alike`.

    Raises:
        MismatchError: the dictionaries are of different width.
    """
    if decoder.shape[1] != other.shape[1]:
        raise MismatchError(
            expected="dictionaries over one space",
            found=f"d_in {decoder.shape[1]} and {other.shape[1]}",
            fix="compare dictionaries trained at the same hook of the same model",
        )
    cosine = matched(decoder, other).cosine
    groups = {"all": np.ones(len(cosine), bool)}
    if classes is not None:
        groups |= {str(c): np.asarray(classes) == c for c in dict.fromkeys(np.asarray(classes).tolist())}
    rows: list[dict[str, str | float | int]] = []
    for name, members in groups.items():
        known = cosine[members & ~np.isnan(cosine)]
        mean = float(known.mean()) if len(known) else float("nan")
        found = float((known >= alike).mean()) if len(known) else float("nan")
        rows.append({"class": name, "latents": int(members.sum()), "mean_cosine": mean, "found_again": found})
    return rows


def duplicates(top: Int[np.ndarray, "latent top"], least: float = 0.5) -> list[tuple[int, int, float]]:
    """Pairs of latents whose sets of top samples overlap: (latent, latent, Jaccard index), the most alike first.

    Args:
        top: places of each latent's top samples, -1 where there are fewer (`Exemplars.at`).
        least: the Jaccard index from which a pair is listed.
    """
    latent, rank = np.nonzero(top >= 0)
    held = csr_array((np.ones(len(latent)), (latent, top[latent, rank])), shape=(len(top), int(top.max(initial=0)) + 1))
    sizes: np.ndarray = np.asarray(held.sum(1))
    both = (held @ held.T).tocoo()
    index = both.data / (sizes[both.row] + sizes[both.col] - both.data)
    listed = np.flatnonzero((both.row < both.col) & (index >= least))
    found = [(int(both.row[n]), int(both.col[n]), float(index[n])) for n in listed]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def contained(top: Int[np.ndarray, "latent top"], least: float = 0.8) -> list[tuple[int, int, float]]:
    """The hierarchy: (narrow latent, broad latent, share of the narrow one's top samples the broad one fires on too).

    Only pairs where the broad latent has more top samples than the narrow one are listed.
    """
    latent, rank = np.nonzero(top >= 0)
    held = csr_array((np.ones(len(latent)), (latent, top[latent, rank])), shape=(len(top), int(top.max(initial=0)) + 1))
    sizes: np.ndarray = np.asarray(held.sum(1))
    both = (held @ held.T).tocoo()
    share = both.data / sizes[both.row]
    listed = np.flatnonzero((sizes[both.row] < sizes[both.col]) & (share >= least))
    found = [(int(both.row[n]), int(both.col[n]), float(share[n])) for n in listed]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))
