"""Fraction of variance unexplained.

FVU = sum |x - x_hat|^2 / sum |x - mean|^2        mean per coordinate over all rows
"""

from cliplens.arrays import Array, as_double, check_same_rows


def fvu(activations: Array, reconstruction: Array) -> float:
    """Return the fraction of variance that a reconstruction leaves unexplained: 1 less the explained variance.

    The mean is taken per coordinate over all rows that are given, so give the whole set at once, not batches. Squares
    are summed over rows and coordinates; squaring the sum over coordinates instead, as is sometimes done, is right only
    for centred activations with residuals that sum to 0.

    Args:
        activations: [row, d], torch or numpy.
        reconstruction: [row, d], row i for row i.

    Returns:
        At least 0; 1 for the mean of the rows, which is the control; nan where the rows do not vary.

    Raises:
        InputError: the shapes differ.
        NonFiniteError: nan or inf.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [3.0, 0.0]])
    >>> fvu(x, x), fvu(x, np.array([[2.0, 0.0], [2.0, 0.0]]))
    (0.0, 1.0)
    """
    x, back = (as_double(v, n, ("row", "d")) for v, n in ((activations, "activations"), (reconstruction, "rows")))
    check_same_rows(x, back, "activations and reconstruction")
    spread = float((x - x.mean(0)).square().sum())
    # Rounding of the mean leaves a spread of this size where all rows are equal.
    constant = spread <= 1e-24 * float(x.square().sum())
    return float("nan") if constant else float((x - back).square().sum()) / spread
