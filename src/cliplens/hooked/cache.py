"""Caches: TransformerLens' own for a tower, and one for both towers that gives each tower's."""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformer_lens.ActivationCache import ActivationCache

from cliplens.errors import InputError
from cliplens.sites import SIDES, Side

if TYPE_CHECKING:
    from cliplens.hooked.tower import HookedTower


class ClipActivationCache(ActivationCache):
    """TransformerLens' cache over a tower; its decompositions sum to the residual stream here too.

    Behind a `ln_pre` the raw position embeddings are no part of the stream: there `hook_embed` is the stream that
    enters block 0, and the position embeddings are left out of every sum.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: "HookedTower", has_batch_dim: bool = True) -> None:
        super().__init__(cache_dict, model, has_batch_dim)
        if not model.adds_pos_embed:
            self.has_pos_embed = False

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "ClipActivationCache":
        """A cache of some of the samples, as in TransformerLens."""
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ClipActivationCache(sliced.cache_dict, self.model, sliced.has_batch_dim)


class JointCache(dict[str, Tensor]):
    """Activations of both towers under joint names; `.vision` and `.text` are the towers' own caches."""

    def __init__(
        self, activations: dict[str, Tensor], towers: "dict[Side, HookedTower]", has_batch_dim: bool = True
    ) -> None:
        super().__init__(activations)
        self._towers = towers
        self._has_batch_dim = has_batch_dim

    @property
    def vision(self) -> ClipActivationCache:
        """The vision tower's cache, under the tower's own names."""
        return self._of("vision")

    @property
    def text(self) -> ClipActivationCache:
        """The text tower's cache, under the tower's own names."""
        return self._of("text")

    def _of(self, side: Side) -> ClipActivationCache:
        if side not in self._towers:
            raise InputError(
                expected=f"a model with a {side} tower", found=f"towers {sorted(self._towers)} of {SIDES}", do="read those"
            )
        prefix = f"{side}."
        own = {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}
        return ClipActivationCache(own, self._towers[side], self._has_batch_dim)
