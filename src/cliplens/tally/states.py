"""States that merge. The state of a metric joins the states of its parts."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError


@runtime_checkable
class Stateful(Protocol):
    """An object that returns its state as tensors and can continue from such a state."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Mergeable(Stateful, Protocol):
    """A state that can add that of another instance: metrics, `Sums`, `TopSamples`."""

    def merge(self, other: Any) -> None: ...


Part = TypeVar("Part", bound=Mergeable)


def joined_states(parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """Return the states of several parts as one, its tensors named `part.name`."""
    return {f"{part}.{name}": t for part, held in parts.items() for name, t in held.state().items()}


def load_joined(parts: Mapping[str, Stateful], state: Mapping[str, Tensor]) -> None:
    """Load the state of every part from a state that `joined_states` returned."""
    for part, held in parts.items():
        start = f"{part}."
        held.load_state({name.removeprefix(start): t for name, t in state.items() if name.startswith(start)})


class PartPerKey(Generic[Part]):
    """A mapping from keys (judges, modalities, targets) to parts, each created at first use. Mergeable.

    Args:
        make: function that creates the part of a key.
    """

    def __init__(self, make: Callable[[str], Part]) -> None:
        self._make = make
        self._held: dict[str, Part] = {}

    def __getitem__(self, key: str) -> Part:
        if key not in self._held:
            self._held[key] = self._make(key)
        return self._held[key]

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def items(self) -> Iterator[tuple[str, Part]]:
        """Yield each key with its part, in the order they were made."""
        yield from self._held.items()

    def merge(self, other: "PartPerKey[Part]") -> None:
        """Add the state of another instance."""
        for key, part in other.items():
            self[key].merge(part)

    def state(self) -> dict[str, Tensor]:
        """Return the states of all parts as one, its tensors named `key/name`."""
        return {f"{key}/{name}": t for key, part in self.items() for name, t in part.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state` returned."""
        grouped: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            key, _, own = name.rpartition("/")
            grouped.setdefault(key, {})[own] = value
        self._held = {}
        for key, held in grouped.items():
            self[key].load_state(held)


class MetricOfParts(Metric):
    """A metric that consists of mergeable parts. It merges, saves and loads part by part."""

    @abstractmethod
    def parts(self) -> Mapping[str, Mergeable]:
        """Return the parts by name. No name may begin with another name and a dot."""

    def merge(self, other: Metric) -> None:
        """Add the state of another instance of the same class.

        Raises:
            InputError: the other metric is of another class.
        """
        if type(other) is not type(self) or not isinstance(other, MetricOfParts):
            kind = type(self).__name__
            raise InputError(
                expected=f"another {kind} to merge", found=f"a {type(other).__name__}", fix="merge metrics of one class"
            )
        theirs = other.parts()
        for name, part in self.parts().items():
            part.merge(theirs[name])

    def state(self) -> dict[str, Tensor]:
        """Return the states of all parts as one."""
        return joined_states(self.parts())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state` returned."""
        load_joined(self.parts(), state)
