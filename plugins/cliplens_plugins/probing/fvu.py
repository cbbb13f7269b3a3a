"""Compute the fraction of variance unexplained (FVU).

FVU = sum |x - x_hat|^2 / sum |x - mean|^2        where mean is that of each coordinate over all rows
"""

from cliplens.arrays import Array, as_double, check_same_rows


def fvu(activations: Array, reconstruction: Array) -> float:
    """Return the fraction of variance that a reconstruction does not explain: 1 - explained variance.

    The mean is computed over all rows, so pass all rows at once, not batches.

    Args:
        activations: [row, d], torch or numpy.
        reconstruction: [row, d], of the same rows.

    Returns:
        0 or more. The control, reconstruction by the mean, has 1. nan if all rows are equal.

    Raises:
        InputError: the shapes differ.
        NonFiniteError: an array contains nan or inf.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [3.0, 0.0]])
    >>> fvu(x, x), fvu(x, np.array([[2.0, 0.0], [2.0, 0.0]]))
    (0.0, 1.0)
    """
    x, back = (as_double(v, n, ("row", "d")) for v, n in ((activations, "activations"), (reconstruction, "rows")))
    check_same_rows(x, back, "activations and reconstruction")
    spread = float((x - x.mean(0)).square().sum())
    # If all rows are equal, rounding of the mean leaves a spread of this size.
    constant = spread <= 1e-24 * float(x.square().sum())
    return float("nan") if constant else float((x - back).square().sum()) / spread
