"""The tests check types and shapes of calls into the packages: those of jaxtyping, made by `support.shape_checks`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.keys import hashed, pair_keys
from cliplens.records import Batch
from support.shape_checks import checked

if TYPE_CHECKING:
    from decimal import Decimal

refused = pytest.raises(BeartypeCallHintViolation)


@checked
def scaled(x: Float[Tensor, "row col"], by: Float[Tensor, " col"]) -> Float[Tensor, "row col"]:
    return x * by if len(x) > 1 else (x * by)[:, :1]


@checked
def inner(x: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
    return scaled(x[:, None].expand(-1, 2), torch.ones(2))[:, 0]  # other rows and columns than those of the caller


@checked
def named(label: str, *counts: int, weight: float = 1.0, at: "Later | None" = None) -> int:
    return len(label) * sum(counts) if weight else "none"  # type: ignore[return-value]


@checked
def unknown(x: "Decimal") -> "Decimal":
    return x


@checked
def rows(x: Float[Tensor, "row col"]) -> Iterator[Float[Tensor, " col"]]:
    yield from x


@checked
@dataclass(frozen=True)
class Later:
    x: Int[np.ndarray, " row"]
    y: Int[np.ndarray, " row"]
    name: str = ""


def test_axes_agree_between_arguments_and_with_what_is_returned() -> None:
    assert scaled(torch.ones(2, 3), torch.ones(3)).shape == (2, 3)
    with refused:
        scaled(torch.ones(2, 3), torch.ones(1))
    with refused:
        scaled(torch.ones(2, 3).int(), torch.ones(3))
    with refused:
        scaled(torch.ones(1, 3), torch.ones(3))  # returns another number of columns
    assert inner(torch.ones(5)).shape == (5,)
    assert [len(row) for row in rows(torch.ones(2, 3))] == [3, 3]
    with pytest.raises(jaxtyping.TypeCheckError):
        next(rows(torch.ones(3)))


def test_types_are_checked_of_every_argument_and_of_what_is_returned() -> None:
    one = np.ones(1, dtype=np.int64)
    assert named("ab", 1, 2, weight=2.0, at=Later(one, one)) == 6
    assert unknown(3) == 3  # type: ignore[arg-type]  # a name that only type checkers import
    for call in (
        lambda: named(1, 2),  # type: ignore[arg-type]
        lambda: named("a", "b"),  # type: ignore[arg-type]
        lambda: named("a", weight=1),
        lambda: named("a", weight=0.0),
        lambda: named("a", at="b"),  # type: ignore[arg-type]
    ):
        with refused:
            call()


def test_fields_of_data_classes_agree() -> None:
    with refused:
        Later(np.ones(2, dtype=np.int64), np.ones(3, dtype=np.int64))
    with refused:
        Later(np.ones(2, dtype=np.int64), np.ones(2, dtype=np.int64), name=b"")  # type: ignore[arg-type]


def test_closures_are_checked_with_their_own_values() -> None:
    def made(by: int) -> Float[Tensor, " row"]:
        @checked
        def times(x: Float[Tensor, " row"], *, plus: int = by) -> Float[Tensor, " row"]:
            return x * by + plus

        with refused:
            times(torch.ones(1, 1))
        return times(torch.ones(3))

    assert made(2).tolist() == [4.0] * 3
    assert made(3).tolist() == [6.0] * 3


def test_the_packages_are_checked() -> None:
    with refused:
        hashed(np.ones(3), 0)
    with refused:
        pair_keys([1, 2])  # type: ignore[list-item]
    with refused:
        Batch("no activations", None, None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked_shapes")
def test_nothing_is_checked_where_a_test_asks_for_it() -> None:
    assert named("ab", weight=0.0) == "none"  # type: ignore[comparison-overlap]
