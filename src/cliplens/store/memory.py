"""Control when the C library returns freed memory to the system: soon in a long harvest, late in a training."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's `mallopt`."""
_NEVER = 2**31 - 1
_USUAL = 2**25
"""32 MiB, where glibc's own adjustment ends."""


def trim_memory() -> None:
    """Return freed memory to the system where the C library keeps it (glibc); do nothing elsewhere.

    Batches are made in one thread and freed in another. glibc then keeps more and more pieces that fit no later batch,
    about 2 kB per pair. It looks like a leak and is none.
    """
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


@contextmanager
def reused_memory() -> Iterator[None]:
    """Keep freed memory in the process inside the block, for the next tensor of the same size; glibc only.

    A training step makes and frees the same large tensors. glibc maps each one anew and gives it back when it is freed,
    so the system has to clear its pages every time. At 16,384 latents this takes about a third of a stock step.
    """
    tune = _of_glibc("mallopt")
    if tune is None:
        yield
        return
    for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        tune(name, _NEVER)
    try:
        yield
    finally:
        tune(_MMAP_THRESHOLD, _USUAL)
        tune(_TRIM_THRESHOLD, 2 * _USUAL)
        trim_memory()


@lru_cache(maxsize=2)
def _of_glibc(function: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), function)
    except (AttributeError, OSError, TypeError):
        return None
