"""Compare a tower with its stock model; errors name what to correct."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import CliplensError

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


class TowerCheckError(AssertionError):
    """A tower fails a check. The message names the expected and the found value, and what to correct."""

    def __init__(self, *, expected: str, found: str, fix: str) -> None:
        super().__init__(f"Expected {expected}, but found {found}. Fix: {fix}.")


def near(found: Float[Tensor, "..."], wanted: Float[Tensor, "..."], what: str) -> None:
    """Check that two tensors agree within the tolerance of their dtype.

    Raises:
        TowerCheckError: they differ; the message says by how much.
    """
    finite = wanted.isfinite()
    check(
        found.shape == wanted.shape and torch.equal(found.isfinite(), finite),
        expected=f"{what}: {list(wanted.shape)}, finite in the same places",
        found=f"shape {list(found.shape)}, or nan and inf in other places",
        fix="compute the same steps as the stock module, with the same mask",
    )
    largest = wanted[finite].abs().max().item() if finite.any() else 0.0
    off = (found.to(wanted)[finite] - wanted[finite]).abs().max().item() if finite.any() else 0.0
    tolerance = TOLERANCE.get(wanted.dtype, 1e-2) * max(1.0, largest)
    check(
        off <= tolerance,
        expected=f"{what} within {tolerance:.0e}",
        found=f"a difference of {off:.1e}",
        fix="compute the same steps as the stock module, and pass every value through its hook point",
    )


def check(kept: bool, *, expected: str, found: str, fix: str) -> None:
    """Raise a TowerCheckError unless `kept` is True."""
    if not kept:
        raise TowerCheckError(expected=expected, found=found, fix=fix)


@contextmanager
def explained(expected: str, fix: str) -> Iterator[None]:
    """Turn any other error of the `with` block into a TowerCheckError.

    Raises:
        TowerCheckError: the block raised an error; the message contains it, or takes over expected, found and fix.
    """
    try:
        yield
    except TowerCheckError:
        raise
    except CliplensError as error:
        if isinstance(error, AttributeError):  # a mistake in the code of the tower
            raise TowerCheckError(expected=expected, found=f"AttributeError: {error}", fix=fix) from error
        raise TowerCheckError(expected=error.expected, found=error.found, fix=error.fix) from error
    except Exception as error:
        raise TowerCheckError(expected=expected, found=f"{type(error).__name__}: {error}", fix=fix) from error


@contextmanager
def raises(error: type[Exception], what: str) -> Iterator[None]:
    """Check that the `with` block raises this error.

    Raises:
        TowerCheckError: it does not.
    """
    try:
        yield
    except error:
        return
    raise TowerCheckError(
        expected=f"{what} ({error.__name__})", found="no error", fix="leave this check to the methods of HookedTower"
    )
