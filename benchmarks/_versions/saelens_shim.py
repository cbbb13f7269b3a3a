"""Let SAELens 6 be imported beside TransformerLens 4. Import this before `sae_lens`; it does nothing beside version 3.

SAELens 6.54 takes `HookedRootModule` from `transformer_lens.HookedTransformer`, which version 4 removed. The class is
now in `transformer_lens.HookedRootModule`, as it is in 3.9 too. The names that are gone for good become classes that
nothing is an instance of: SAELens only subclasses them and asks `isinstance`. So dictionaries load, encode and train on
activations; loading a `HookedTransformer` by name does not work, and says so.
"""

import sys
from types import ModuleType
from typing import Any

import transformer_lens
from transformer_lens import utilities
from transformer_lens.HookedRootModule import HookedRootModule


class HookedTransformer(HookedRootModule):
    """Stand for the class that TransformerLens 4 removed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError("Expected TransformerLens 3, but found 4, which has no HookedTransformer. Fix: use a bridge.")

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> None:
        """Refuse, as the constructor does."""
        cls(*args, **kwargs)


class CanBeUsedAsMLP(HookedRootModule):
    """Stand for the class that TransformerLens 4 removed."""


def module(name: str, **names: Any) -> None:
    """Put a module with these names where `import` finds it."""
    made = ModuleType(name)
    made.__dict__.update(names)
    sys.modules[name] = made


try:
    import transformer_lens.HookedTransformer
except ModuleNotFoundError:
    module(
        "transformer_lens.HookedTransformer",
        HookedTransformer=HookedTransformer,
        HookedRootModule=HookedRootModule,
        Loss=Any,
        Output=Any,
    )
    module("transformer_lens.components")
    module("transformer_lens.components.mlps")
    module("transformer_lens.components.mlps.can_be_used_as_mlp", CanBeUsedAsMLP=CanBeUsedAsMLP)
    sys.modules["transformer_lens.utils"] = utilities
    transformer_lens.HookedTransformer = HookedTransformer
