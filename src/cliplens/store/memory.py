"""Return freed memory to the system, so that a long harvest stays as small as a short one."""

import ctypes
from collections.abc import Callable
from functools import lru_cache


def trim_memory() -> None:
    """Return freed memory to the system where the C library keeps it (glibc); do nothing elsewhere.

    Batches are made in one thread and freed in another. glibc then keeps more and more pieces that fit no later batch,
    about 2 kB per pair. It looks like a leak and is none.
    """
    trim = _trimmer()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trimmer() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
