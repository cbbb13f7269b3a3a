"""The pictures and caption texts that the pairs of a pass share."""

from collections.abc import Callable, Sequence

import numpy as np

from cliplens.pairs import Pairs
from cliplens.records import Units


def units_of(pairs: Pairs, ids: Sequence[str]) -> Callable[[Sequence[str]], Units]:
    """Return a function from ids to their units, where a pass goes over `ids` in this order.

    The source of the pairs says which of them show one picture; a caption is its text.
    """
    index = pairs.indices(ids)
    passed = pairs.take([index[i] for i in ids])
    every = Units.from_columns(ids, passed.image_ids, passed.caption_ids)
    row_of = {pair_id: row for row, pair_id in enumerate(ids)}
    return lambda some: every.take(np.array([row_of[i] for i in some], dtype=np.int64))
