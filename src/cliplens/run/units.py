"""Find the pictures and caption texts that pairs share."""

from collections.abc import Callable, Sequence

import numpy as np

from cliplens.pairs import Pairs
from cliplens.records import Units


def units_of(pairs: Pairs, ids: Sequence[str]) -> Callable[[Sequence[str]], Units]:
    """Return a function of pair ids that returns their units, for a pass over `ids` in this order.

    Which pairs show the same picture is known from their source. Captions are the same if their texts are equal.
    """
    index = pairs.indices(ids)
    passed = pairs.take([index[i] for i in ids])
    every = Units.from_columns(ids, passed.image_ids, passed.caption_ids)
    row_of = {pair_id: row for row, pair_id in enumerate(ids)}
    return lambda some: every.take(np.array([row_of[i] for i in some], dtype=np.int64))
