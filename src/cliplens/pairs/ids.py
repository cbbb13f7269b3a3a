"""Make ids of pairs unique, and valid text that can be saved."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from cliplens.keys import first_id
from cliplens.pairs.strings import Strings


def unique_ids(ids: Strings) -> Strings:
    """Return the ids with `#1`, `#2`, ... appended to the second and later ones of the same name, in order."""
    # Hashes need eight bytes per id, and show whether any id is repeated.
    keys = np.fromiter(map(hash, ids.raw()), np.int64, len(ids))
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return Strings.of(_renamed(ids, np.isin(keys, twice))) if len(twice) else ids


def _renamed(ids: Strings, perhaps: Bool[np.ndarray, " id"]) -> Iterator[str]:
    taken = {name for name in ids if name is not None and first_id(name) != name}
    seen: dict[str, int] = {}
    for given, again in zip(ids, perhaps, strict=True):
        name = str(given)
        count = seen.get(name, 0) if again else 0
        fresh = f"{name}#{count}" if count else name
        while count and fresh in taken:
            count += 1
            fresh = f"{name}#{count}"
        if again:
            seen[name] = count + 1
        yield fresh


def printable(ids: Strings) -> Strings:
    """Return the ids with invalid bytes written as escapes, so that every id can be saved."""
    try:
        ids.check_text()
    except pa.ArrowInvalid:
        return Strings.of(str(i).encode("utf-8", "backslashreplace").decode() for i in ids)
    return ids
