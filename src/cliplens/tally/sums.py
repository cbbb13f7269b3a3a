"""Named sums that merge by addition: the state of most metrics."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64, Num, Shaped
from torch import Tensor


class Sums:
    """Named tensors that are only added to. Sums are float64, counts int64; rows of counts int32.

    Where a sum and what is added to it differ in dtype, the wider one is kept.

    >>> sums = Sums()
    >>> sums.add("rows", 3)
    >>> sums.add("rows", 4)
    >>> int(sums["rows"])
    7
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def add(self, name: str, value: Shaped[Tensor, "..."] | float | int) -> None:
        """Add to the sum of that name, which starts at zero."""
        # torch would make a Python float a float32.
        term = torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        term = term.to(torch.float64 if term.is_floating_point() else torch.int64)
        self._plus(name, term)

    def add_per_latent(
        self, name: str, latents: Int64[Tensor, " firing"], values: Shaped[Tensor, " firing"] | None, d_sae: int
    ) -> None:
        """Add the values of firings to a sum per latent; without values, count firings; for bools, count True."""
        if values is not None and values.dtype == torch.bool:
            latents, values = latents[values], None
        if values is None:
            self.add(name, torch.bincount(latents, minlength=d_sae))
            return
        # Without any firing, bincount returns integers even for floating-point weights.
        self.add(name, torch.bincount(latents, values.double(), minlength=d_sae).double())

    def add_rows(self, name: str, latents: Int64[Tensor, " some"], rows: Num[Tensor, "some width"], d_sae: int) -> None:
        """Add rows to those of some latents, each named once, in a sum of `d_sae` rows: int32 if the rows are."""
        dtype = torch.int32 if rows.dtype == torch.int32 else torch.float64
        if name not in self._held:
            self._held[name] = rows.new_zeros(d_sae, rows.shape[1], dtype=dtype)
        held = self._widened(name, dtype)
        held.index_add_(0, latents, rows.to(held.dtype))

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def get(self, name: str, default: Shaped[Tensor, "..."]) -> Tensor:
        """Return the sum of that name, or `default` if nothing was added to it."""
        return self._held.get(name, default)

    def names(self) -> tuple[str, ...]:
        """Return the names of all sums."""
        return tuple(self._held)

    def merge(self, other: "Sums") -> None:
        """Add the sums of another instance."""
        for name, value in other._held.items():
            self._plus(name, value)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of every sum."""
        return {name: value.clone() for name, value in self._held.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by one that `state` returned."""
        self._held = {name: value.clone() for name, value in state.items()}

    def _plus(self, name: str, term: Shaped[Tensor, "..."]) -> None:
        if name in self._held:
            self._widened(name, term.dtype).add_(term)
        else:
            self._held[name] = term.clone()

    def _widened(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return the sum of that name, in place where its dtype holds `dtype` too, else in the wider one."""
        held = self._held[name]
        self._held[name] = held.to(torch.promote_types(held.dtype, dtype))
        return self._held[name]
