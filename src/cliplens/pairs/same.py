"""Find which pairs share a picture or a caption."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64


def representatives(keys: Int64[np.ndarray, " pair"], id_at: Callable[[int], str]) -> Int64[np.ndarray, " pair"]:
    """Return, for each pair, the index of the representative of its group: the pair with the smallest id.

    Pairs with equal keys form a group. The result does not depend on the order of the pairs.

    >>> ids = ["b", "a", "c"]
    >>> representatives(np.array([7, 7, 9]), ids.__getitem__).tolist()
    [1, 1, 2]
    """
    _, first, group, size = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    chosen = first.copy()
    shared = np.flatnonzero(size[group] > 1)
    ordered = shared[np.argsort(group[shared], kind="stable")]
    for members in np.split(ordered, np.flatnonzero(np.diff(group[ordered])) + 1):
        if len(members):
            chosen[group[members[0]]] = min(members.tolist(), key=id_at)
    return chosen[group].astype(np.int64)
