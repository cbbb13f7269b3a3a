"""Compare a tower with its stock encoder when it is opened, and again after a change of the encoder."""

from typing import Any

from torch import nn

from cliplens.errors import MismatchError
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.proof import prove
from cliplens.hooked.structure import changes, composition, structure, values_of

_proved_kinds: set[tuple[Any, ...]] = set()
"""Class of the tower and structure of the stock encoder, of each pair that was compared."""


class Guard:
    """The proof that a tower equals its stock encoder. It is valid until the structure of the encoder changes.

    Args:
        tower: the tower.
        built_by_name: the encoder's own library built it, so it is compared only if somebody changed it since.

    Raises:
        MismatchError: tower and encoder differ; the message names the first block and the reason.
    """

    def __init__(self, tower: AbstractTower, *, built_by_name: bool) -> None:
        self.tower, self.built_by_name = tower, built_by_name
        self.prove()

    def prove(self) -> None:
        """Compare tower and encoder, unless an encoder of the same structure and known classes was compared before.

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
        """Refuse an encoder whose modules were replaced; compare again one whose hooks or options changed.

        Raises:
            MismatchError: modules were replaced, or tower and encoder differ; the message names the change.
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
    """Return the modules and classes of a structure, without attributes and hooks."""
    return [entry for entry in proved if not isinstance(entry, int | tuple)]
