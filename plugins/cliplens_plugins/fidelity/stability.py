"""Compare the latents of two dictionaries, and find duplicates within one.

Decoder rows are matched one to one so that the sum of cosines is largest (Hungarian matching; Paulo and Belrose, arXiv
2501.16615). The stability is the mean cosine of matched latents, over all latents and per modality class. Matching
picks the largest of many cosines, so it is above 0 by chance: the chance level is that of random mixtures of the rows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from cliplens.analysis import matched, mixtures
from cliplens.deprecation import renamed_keywords
from cliplens.errors import MismatchError


@renamed_keywords(alike="least")
def stability(
    decoder: Float[Tensor, "d_sae d_in"],
    other: Float[Tensor, "d_other d_in_other"],
    classes: Sequence[str] | Shaped[np.ndarray, " d_sae"] | None = None,
    *,
    least: float = 0.7,
    seed: int = 0,
) -> list[dict[str, str | float | int]]:
    """Return how many latents of a dictionary are also found by another, over all latents and per class.

    Args:
        decoder: decoder of the dictionary, [d_sae, d_in]; preferably only living latents.
        other: decoder of a dictionary of another seed, [d_sae, d_in] with the same d_in.
        classes: class of each latent of the first dictionary, such as the column `modality`.
        least: minimum cosine of a latent that counts as found again.
        seed: seed of the random mixtures.

    Returns:
        Rows with `class`, `latents`, `mean_cosine` in [-1, 1] and `found_again`, the share with a cosine of at least
        `least`; `chance_cosine` and `chance_found` are the same for as many random mixtures of the decoder's rows. nan
        where no latent of the class has a partner.

    Raises:
        MismatchError: the dictionaries have different d_in.
    """
    if decoder.shape[1] != other.shape[1]:
        raise MismatchError(
            expected="two dictionaries with the same d_in",
            found=f"d_in {decoder.shape[1]} and {other.shape[1]}",
            fix="compare dictionaries trained at the same hook of the same model",
        )
    cosine = matched(decoder, other).cosine
    chance = matched(mixtures(decoder, seed), other).cosine
    groups = {"all": np.ones(len(cosine), bool)}
    if classes is not None:
        groups |= {str(c): np.asarray(classes) == c for c in dict.fromkeys(np.asarray(classes).tolist())}
    rows: list[dict[str, str | float | int]] = []
    for name, members in groups.items():
        (mean, found), (by_chance, found_by_chance) = (_summary(c[members], least) for c in (cosine, chance))
        rows.append(
            {
                "class": name,
                "latents": int(members.sum()),
                "mean_cosine": mean,
                "found_again": found,
                "chance_cosine": by_chance,
                "chance_found": found_by_chance,
            }
        )
    return rows


def _summary(cosine: Float[np.ndarray, " latent"], least: float) -> tuple[float, float]:
    """Return the mean cosine and the share of at least `least`; nan where no latent has a partner."""
    known = cosine[~np.isnan(cosine)]
    return (float(known.mean()), float((known >= least).mean())) if len(known) else (float("nan"), float("nan"))


def duplicates(top: Int[np.ndarray, "latent top"], least: float = 0.5) -> list[tuple[int, int, float]]:
    """Return pairs of latents whose sets of top samples overlap, as (latent, latent, Jaccard index), highest first.

    Args:
        top: indices of each latent's top samples, padded with -1 (`Exemplars.at`).
        least: minimum Jaccard index of a listed pair.

    >>> duplicates(np.array([[0, 1, 2], [1, 2, 3], [7, 8, 9]]))
    [(0, 1, 0.5)]
    """
    sizes, both = _overlaps(top)
    index = both.data / (sizes[both.row] + sizes[both.col] - both.data)
    listed = np.flatnonzero((both.row < both.col) & (index >= least))
    return _listed(both, index, listed)


def contained(top: Int[np.ndarray, "latent top"], least: float = 0.8) -> list[tuple[int, int, float]]:
    """Return latents whose top samples are mostly top samples of a broader latent.

    Returns:
        Triples (narrow latent, broad latent, share of the narrow one's top samples that are also the broad one's), for
        pairs in which the broad latent has more top samples than the narrow one.

    >>> contained(np.array([[0, 1, -1, -1], [0, 1, 2, 3]]))
    [(0, 1, 1.0)]
    """
    sizes, both = _overlaps(top)
    share = both.data / sizes[both.row]
    listed = np.flatnonzero((sizes[both.row] < sizes[both.col]) & (share >= least))
    return _listed(both, share, listed)


def _overlaps(top: Int[np.ndarray, "latent top"]) -> tuple[np.ndarray, coo_array]:
    """Return the number of top samples of each latent, and the number that each two latents share."""
    latent, rank = np.nonzero(top >= 0)
    held = csr_array((np.ones(len(latent)), (latent, top[latent, rank])), shape=(len(top), int(top.max(initial=0)) + 1))
    return np.asarray(held.sum(1)), (held @ held.T).tocoo()


def _listed(both: coo_array, values: np.ndarray, listed: np.ndarray) -> list[tuple[int, int, float]]:
    """Return the listed pairs of latents with their values, highest first."""
    found = [(int(both.row[n]), int(both.col[n]), float(values[n])) for n in listed]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))
