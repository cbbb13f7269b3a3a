"""Vectors of the samples that are kept, in parts, so that dropping some of them copies few at a time."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.store.memory import trim_memory

_TRIMMED = 2**24
"""Bytes after which the memory of copied parts goes back to the system."""


class KeptRows:
    """Rows in the order in which they were added. Memory stays near that of the rows, also while some are dropped.

    >>> rows = KeptRows()
    >>> rows.add(torch.eye(3))
    >>> rows.keep(torch.tensor([0, 2]))
    >>> rows.joined()
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._nothing = torch.empty(0, 0)
        """No rows, of the width and dtype of those that were added last."""

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, rows: Float[Tensor, "row d"]) -> None:
        """Add rows."""
        self._nothing = rows.new_empty(0, rows.shape[1])
        if len(rows):
            self._parts.append(rows)

    def keep(self, kept: Int64[Tensor, " kept"]) -> None:
        """Drop all rows but those with these indices, which increase. They are numbered anew, in the same order."""
        start = 0
        for n, part in enumerate(self._parts):
            first, last = torch.searchsorted(kept, torch.tensor([start, start + len(part)])).tolist()
            if last - first < len(part):
                self._parts[n] = part[kept[first:last] - start]
            start += len(part)
        self._parts = [part for part in self._parts if len(part)]

    def joined(self) -> Float[Tensor, "row d"]:
        """Return all rows as one tensor, which takes their place. Each part is freed once it is copied."""
        if not self._parts:
            return self._nothing
        if len(self._parts) > 1:
            first = self._parts[0]
            out = torch.empty(len(self), first.shape[1], dtype=first.dtype)
            del first
            start = freed = 0
            while self._parts:
                part = self._parts.pop(0)
                out[start : start + len(part)] = part
                start, freed = start + len(part), freed + part.nbytes
                del part
                if freed > _TRIMMED:
                    trim_memory()  # parts are small, and would stay beside the whole
                    freed = 0
            self._parts = [out]
        return self._parts[0]
