"""Merge the states of several processes over `torch.distributed`."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cliplens.tally.states import Mergeable


def all_reduce(seen: Sequence[Mergeable]) -> None:
    """Merge the states of all processes of a `torch.distributed` group, in the order of ranks, in every process.

    Every process ends with the same states, bit for bit. Do nothing where no group was started.

    Args:
        seen: metrics and top samples, the same ones in the same order in every process.
    """
    if not distributed():
        return
    for held in seen:
        all_reduce_one(held)


def all_reduce_one(held: Mergeable) -> None:
    """Merge one state over all processes of the group that is running."""
    own = held.state()
    for rank in range(torch.distributed.get_world_size()):
        sent = _broadcast(own, rank)
        if rank == 0:
            held.load_state(sent)
        else:
            other = copy.deepcopy(held)
            other.load_state(sent)
            held.merge(other)


def _broadcast(state: dict[str, Tensor], source: int) -> dict[str, Tensor]:
    """Return the state of one rank on every rank: send names, shapes and dtypes first, then tensor by tensor."""
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


def distributed() -> bool:
    """Return whether a `torch.distributed` group is running."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def shards(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of this process: every n-th one of n processes; all items where no group was started."""
    if not distributed():
        yield from items
        return
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    yield from (item for place, item in enumerate(items) if place % world == rank)
