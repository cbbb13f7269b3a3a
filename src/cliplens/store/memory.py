"""Memory that was freed goes back to the system, so that a long harvest stays as small as a short one."""

import ctypes
from collections.abc import Callable
from functools import lru_cache


def give_back() -> None:
    """Return freed memory to the system where the C library keeps it (glibc); elsewhere nothing needs doing.

    Batches are made in one thread and freed in another. glibc then keeps ever more pieces that fit no later batch:
    some 2 kB per pair, which looks like a leak and is none.
    """
    trim = _trimmer()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trimmer() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):
        return None
