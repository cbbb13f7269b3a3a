"""Define a port: a site of a target model at which activations can be rewritten."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cliplens.sites import Site
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.rewriting import Rewrite


@dataclass(frozen=True)
class Port:
    """One site of one target.

    The target is steered inside the context `attach(rewrite, movement)` and restored afterwards. The context records
    the number of runs and the relative movement of the conditioning in `movement`.
    """

    site: Site
    width: int
    attach: Callable[[Rewrite, Movement], AbstractContextManager[Any]]
