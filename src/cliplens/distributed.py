"""Coordinate the processes of one run, as started by `torchrun`. A single process is a group of one."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_TIMEOUT = timedelta(days=14)
"""Timeout of waiting, which is long because ranks may finish hours apart; torchrun detects dead ranks."""
_ALONE = ContextVar("alone", default=False)


def is_distributed() -> bool:
    """Return whether this process shares its work with others in a `torch.distributed` group."""
    return not _ALONE.get() and torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def alone() -> Iterator[None]:
    """Work inside the block as a single process, also under torchrun: nothing is shared, awaited or merged."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


@dataclass(frozen=True)
class Group:
    """The rank of this process in a run, and the number of processes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Group":
        """Return the group of this process; join it first if torchrun's environment variables are set."""
        distributed = torch.distributed
        if _ALONE.get() or not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) < 2:
                return cls()
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=_TIMEOUT)
        return cls(distributed.get_rank(), distributed.get_world_size())

    def wait(self) -> None:
        """Wait until every process of the group has called this method."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1))

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process, then in all the others."""
        if self.rank != 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()


def shards(items: Iterable[T]) -> Iterator[T]:
    """Yield the items of this process. In a group of n processes, rank r gets items r, r + n, r + 2n, ...; else all."""
    if not is_distributed():
        yield from items
        return
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    yield from (item for index, item in enumerate(items) if index % size == rank)


def gather_objects(item: T) -> list[T]:
    """Return the item of every process, in the order of ranks; `[item]` without a group."""
    if not is_distributed():
        return [item]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, item)
    return gathered


def broadcast_tensors(state: dict[str, Tensor], source: int) -> dict[str, Tensor]:
    """Return the named tensors of rank `source` on every rank. The `state` of other ranks is ignored."""
    device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
    mine = torch.distributed.get_rank() == source
    header = [[(name, tuple(t.shape), t.dtype) for name, t in state.items()] if mine else None]
    torch.distributed.broadcast_object_list(header, src=source, device=device)
    sent = {}
    for name, shape, dtype in header[0] or ():
        buffer = state[name].to(device).contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
        torch.distributed.broadcast(buffer, src=source)
        sent[name] = buffer.to(state[name].device if mine else "cpu")
    return sent
