"""Merge the states of several processes over `torch.distributed`."""

import copy
from collections.abc import Sequence

import torch

from cliplens.deprecation import deprecated_names
from cliplens.distributed import broadcast_tensors, is_distributed
from cliplens.tally.states import Mergeable

__getattr__ = deprecated_names(
    __name__, {"distributed": "cliplens.distributed:is_distributed", "shards": "cliplens.distributed:shards"}
)


def all_reduce(seen: Sequence[Mergeable]) -> None:
    """Merge the states of all processes of a `torch.distributed` group, in the order of ranks, in every process.

    Every process ends with the same states, bit for bit. Do nothing where no group was started.

    Args:
        seen: metrics and top samples, the same ones in the same order in every process.
    """
    if not is_distributed():
        return
    for held in seen:
        all_reduce_one(held)


def all_reduce_one(held: Mergeable) -> None:
    """Merge one state over all processes of the group that is running."""
    own = held.state()
    for rank in range(torch.distributed.get_world_size()):
        sent = broadcast_tensors(own, rank)
        if rank == 0:
            held.load_state(sent)
        else:
            other = copy.deepcopy(held)
            other.load_state(sent)
            held.merge(other)
