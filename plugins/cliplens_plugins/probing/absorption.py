"""Measure feature absorption: where the latent of an attribute is silent, another latent carries the attribute.

Chanin et al. (arXiv 2409.14507) found latents for "starts with S" that do not fire on "snake", because the latent of
that word carries the S as well. Their definition needs the first letters of tokens. Ours works with any label:

- direction: the difference of the class means of the activations on training rows, normalised.
- main latent: the latent whose class means differ most on training rows.
- contribution of a latent in a row: code * <decoder row, direction>.
- Another latent *carries* the attribute in a row if it has the largest contribution, its decoder row has a cosine of at
  least `aligned` with the direction, and its contribution is at least half of the main latent's mean contribution over
  positive rows on which that fires.

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
"""Least cosine between the decoder row of a carrying latent and the direction of the attribute."""


@dataclass(frozen=True)
class Absorption:
    """Shares of test rows, in [0, 1]; nan if there are no such rows, or the main latent fires on none of them."""

    main: int
    """The main latent; -1 if the training rows contain only one class."""
    silent: float
    """Share of positive rows on which the main latent is silent."""
    absorbed: float
    """Share of positive rows on which it is silent and another latent carries the attribute."""
    control: float
    """The same share of negative rows: how often this happens by chance."""


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
        codes: [row, latent], codes of the same rows.
        decoder: [latent, d], decoder rows.
        labels: whether each row has the attribute.
        pictures: the picture of each row. All rows of a picture are training rows, or all are test rows.
        aligned: least cosine between the decoder row of a carrying latent and the direction of the attribute.
        seed: seed of the split.

    Raises:
        InputError: an array has another shape.
        NonFiniteError: an array contains nan or inf.
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
    """Return a mask of the rows in which another latent than `main` carries; None if `main` never fires."""
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
