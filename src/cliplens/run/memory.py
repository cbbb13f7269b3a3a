"""Keep what several runs on the same activations compute alike, so that it is computed once."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
KEPT_BYTES = 2**30
"""Most bytes of a pass that are kept; a longer pass is read again each time."""


class Sized(Protocol):
    """An item that knows its memory."""

    @property
    def bytes(self) -> int:
        """Bytes that it holds."""


S = TypeVar("S", bound=Sized)


class Memory:
    """Results by key, kept as long as the object lives. A key names everything its result depends on.

    >>> memory = Memory()
    >>> memory.once("sum", lambda: sum(range(4))), memory.once("sum", lambda: 0)
    (6, 6)
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result of `make`, which is called for the first request of a key only."""
        if key not in self._held:
            self._held[key] = make()
        result: T = self._held[key]
        return result


class Kept(Generic[S]):
    """A pass over items that can be repeated: kept in memory if it is short enough, otherwise read again."""

    def __init__(self, read: Callable[[], Iterator[S]], most: int = KEPT_BYTES) -> None:
        self._read, self._most = read, most
        self._held: list[S] | None = None

    def __iter__(self) -> Iterator[S]:
        if self._held is not None:
            yield from self._held
            return
        held: list[S] = []
        size = 0
        for item in self._read():
            size += item.bytes
            if size <= self._most:
                held.append(item)
            else:
                held.clear()
            yield item
        if size <= self._most:
            self._held = held
