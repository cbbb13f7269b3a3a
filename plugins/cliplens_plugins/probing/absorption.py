"""Feature absorption (ours for vision): where the latent of an attribute is silent, does another carry the attribute?

Chanin et al. (arXiv 2409.14507) found latents for "starts with S" that are silent on "snake", because a latent of that
word carries the S too. Their definition needs the first letters of tokens. Here the attribute is any label:

    direction   difference of the class means of the activations, on training rows, at length 1
    main        the latent whose class means differ most on training rows
    carries     code times <decoder row, direction>; another latent carries the attribute in a row where it is the one
                that adds most along the direction, its decoder row has a cosine with it of at least `aligned`, and it
                adds at least half of what the main latent adds on average where it fires

Absorption is the share of positive test rows on which the main latent is silent and another latent carries.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import as_double
from cliplens_plugins.probing.sparse_probe import ranked, split

ALIGNED = 0.2


@dataclass(frozen=True)
class Absorption:
    """Shares of test rows, in [0, 1]; nan where there are no such rows, or the main latent fires on none of them."""

    main: int
    """The latent of the attribute; -1 where training rows lack one of the classes."""
    silent: float
    """Positive rows on which the main latent is silent."""
    absorbed: float
    """Positive rows on which, besides, another latent carries the attribute."""
    control: float
    """Negative rows on which the main latent is silent and another carries: how often that happens by chance."""


def absorption(
    activations: Float[Tensor, "row d"] | Float[np.ndarray, "row d"],
    codes: Float[Tensor, "row latent"] | Float[np.ndarray, "row latent"],
    decoder: Float[Tensor, "latent d"] | Float[np.ndarray, "latent d"],
    labels: Sequence[bool] | Bool[np.ndarray, " row"],
    pictures: Sequence[Hashable],
    *,
    aligned: float = ALIGNED,
    seed: int = 0,
) -> Absorption:
    """Return how often the latent of an attribute is silent while another latent carries the attribute.

    Args:
        activations: [row, d], torch or numpy.
        codes: [row, latent], of the same rows.
        decoder: [latent, d].
        labels: whether each row has the attribute.
        pictures: the picture of each row: the rows of one picture are all in training or all in test.
        aligned: least cosine of a carrying latent's decoder row with the direction of the attribute.
        seed: of the split.

    Raises:
        InputError: arrays of other shapes.
        NonFiniteError: nan or inf.
    """
    x, z, rows = (
        as_double(values, name, axes).cpu().numpy()
        for values, name, axes in (
            (activations, "activations", ("row", "d")),
            (codes, "codes", ("row", "latent")),
            (decoder, "decoder rows", ("latent", "d")),
        )
    )
    has = np.asarray(labels, dtype=bool)
    _, in_test = split(pictures, seed)
    train = ~in_test
    if len(set(has[train])) < 2:
        return Absorption(-1, *(float("nan"),) * 3)
    direction = x[train & has].mean(0) - x[train & ~has].mean(0)
    direction /= np.linalg.norm(direction)
    main = int(ranked(z[train], has[train])[0])
    carried = _carried(z[in_test], rows, direction, main, has[in_test], aligned)
    silent = z[in_test, main] == 0
    positive = has[in_test]
    return Absorption(
        main,
        _share(silent, positive),
        _share(silent & carried, positive) if carried is not None else float("nan"),
        _share(silent & carried, ~positive) if carried is not None else float("nan"),
    )


def _carried(
    codes: Float[np.ndarray, "row latent"],
    decoder: Float[np.ndarray, "latent d"],
    direction: Float[np.ndarray, " d"],
    main: int,
    positive: Bool[np.ndarray, " row"],
    aligned: float,
) -> Bool[np.ndarray, " row"] | None:
    """Return the rows in which a latent other than the main one carries; None where the main one never fires."""
    along = decoder @ direction
    fires = positive & (codes[:, main] != 0)
    if not fires.any():
        return None
    usual = float((codes[fires, main] * along[main]).mean())
    adds = codes * along
    adds[:, main] = -np.inf
    best = adds.argmax(1)
    cosine = along / np.maximum(np.linalg.norm(decoder, axis=1), 1e-300)
    carries: np.ndarray = (cosine[best] >= aligned) & (adds[np.arange(len(adds)), best] >= usual / 2) & (usual > 0)
    return carries


def _share(which: Bool[np.ndarray, " row"], among: Bool[np.ndarray, " row"]) -> float:
    return float(which[among].mean()) if among.any() else float("nan")
