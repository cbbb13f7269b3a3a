"""The processes that work together, as torchrun starts them; one process alone is a group of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

_PATIENCE = timedelta(days=14)
"""Ranks finish hours apart on slow disks; a dead rank is noticed by torchrun, not by this clock."""


@dataclass(frozen=True)
class Group:
    """This process among those of one run."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Group":
        """The group of this process: torch.distributed's when it runs, else the one torchrun's variables announce."""
        distributed = torch.distributed
        if not distributed.is_available():
            return cls()
        if not distributed.is_initialized():
            if int(os.environ.get("WORLD_SIZE", "1")) < 2:
                return cls()
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=_PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size())

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1))

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The block runs in the first process, then in all the others."""
        if self.rank != 0:
            self.wait()
        yield
        if self.rank == 0:
            self.wait()
