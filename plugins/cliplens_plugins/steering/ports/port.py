"""A site of a target model where activations can be rewritten while a context is open."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cliplens.sites import Site
from cliplens_plugins.steering.ports.movement import Movement
from cliplens_plugins.steering.ports.rewriting import Rewrite


@dataclass(frozen=True)
class Port:
    """One site of one target. Inside the context `attach(rewrite, movement)` the target is steered; afterwards it is as
    before. `movement` takes the number of runs and the comparison of what the rest of the target reads."""

    site: Site
    width: int
    attach: Callable[[Rewrite, Movement], AbstractContextManager[Any]]
