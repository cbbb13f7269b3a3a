"""Prove a tower when it is opened, and notice at later calls that its stock encoder was changed."""

from typing import Any

from torch import nn

from cliplens.errors import MismatchError
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.proof import prove
from cliplens.hooked.structure import changes, composition, structure, values_of

_proved_kinds: set[tuple[Any, ...]] = set()
"""Classes of towers, with how the stock encoders they were proved with were put together."""


class Guard:
    """The proof of a tower, which holds as long as the structure of its stock encoder stays.

    Args:
        tower: the tower.
        built_by_name: whether its own library built the encoder, so that it is compared only where it was changed.

    Raises:
        MismatchError: tower and encoder differ; names the first block and why.
    """

    def __init__(self, tower: AbstractTower, *, built_by_name: bool) -> None:
        self.tower, self.built_by_name = tower, built_by_name
        self.prove()

    def prove(self) -> None:
        """Compare tower and encoder, unless an encoder put together alike, of known classes, was compared before.

        Raises:
            MismatchError: they differ.
        """
        stock = self.tower.stock
        changed = changes(stock)
        if changed:
            prove(self.tower, as_it_is=True)
        elif not self.built_by_name:
            kind = (type(self.tower), composition(stock))
            if kind not in _proved_kinds:
                prove(self.tower, as_it_is=False)
                _proved_kinds.add(kind)
        named = dict(stock.named_modules())
        self.watched: list[nn.Module] = [named[name] for name in changed if name in named]
        self.values, self.structure = values_of(self.watched), structure(stock)

    def check(self) -> None:
        """Refuse an encoder whose modules are others now, and prove one anew whose hooks or switches changed.

        Raises:
            MismatchError: says what is not as it was.
        """
        now = structure(self.tower.stock)
        if now == self.structure and values_of(self.watched) == self.values:
            return
        if _modules(now) != _modules(self.structure):
            raise MismatchError(
                expected="the same modules as when the model was wrapped",
                found="changed modules (an injected LoRA, a replaced layer or a replaced method)",
                fix="wrap the model again: cliplens.wrap(clip.model)",
            )
        self.prove()


def _modules(proved: list[Any]) -> list[Any]:
    """Return what a structure says of modules and classes, without attributes and hooks."""
    return [entry for entry in proved if not isinstance(entry, int | tuple)]
