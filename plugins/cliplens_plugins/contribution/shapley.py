"""Compute exact Shapley values from all subsets of a few players."""

from math import factorial

import numpy as np
from jaxtyping import Bool, Float

from cliplens.errors import InputError

MOST = 12
"""Largest number of players; n players have 2^n subsets."""


def coalitions(n: int) -> Bool[np.ndarray, "coalition player"]:
    """Return a mask of every subset of n players. In row r, player i is present if bit i of r is 1.

    >>> coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]

    Raises:
        InputError: n is not from 1 to 12.
    """
    if not 1 <= n <= MOST:
        raise InputError(expected=f"1 to {MOST} players", found=str(n), fix="combine small groups into one player")
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def shapley_values(values: Float[np.ndarray, "coalition *item"]) -> Float[np.ndarray, "player *item"]:
    """Return the Shapley value of each player, exactly, for one game or for many at once.

    It is the player's gain, v(S with the player) - v(S), averaged over all orders in which players can be added. The
    values of all players sum to v(all) - v(none), up to rounding in float64.

    Args:
        values: v of every subset, in the order of `coalitions`; further axes are separate games, such as test items.

    Returns:
        Shapley values, float64, in the unit of v.

    Raises:
        InputError: the number of subsets is not a power of 2 from 2 to 4096.

    Source: Shapley, Contributions to the Theory of Games II (1953).

    >>> shapley_values(np.array([0.0, 1.0, 0.0, 3.0]))
    array([2., 1.])
    """
    n = len(values).bit_length() - 1
    if n < 1 or n > MOST or len(values) != 2**n:
        raise InputError(
            expected=f"the value of each of the 2^n subsets of 1 to {MOST} players",
            found=f"{len(values)} values",
            fix="pass them in the order of coalitions(n)",
        )
    v = np.asarray(values, dtype=np.float64)
    size = coalitions(n).sum(1)
    weight = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    every = np.arange(2**n)
    found = []
    for player in range(n):
        without = every[(every >> player & 1) == 0]
        gain = v[without | 1 << player] - v[without]
        found.append(np.tensordot(weight[size[without]], gain, axes=1))
    return np.stack(found)
