"""Hold an attribution: parts that add up to a similarity."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """Contributions to one cosine similarity per row. `parts.sum(1)` and all of `rest` add up to `similarity`.

    Values are in units of cosine similarity, with norms held fixed at their values in this forward pass. A contribution
    is not the effect of an ablation, which also changes norms, attention and later blocks.
    """

    parts: Float[Tensor, "batch part"]
    """Contributions of latents, or of heads and MLPs, in the order of `names`."""
    similarity: Float[Tensor, " batch"]
    """Cosine similarity as computed by the model, in [-1, 1]."""
    rest: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    """Contributions of everything else, by name."""
    names: tuple[str, ...] | None = None
    """Names of the parts; None for latents, which are named by their index."""

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Sum of all contributions, equal to `similarity` up to rounding."""
        return self.parts.sum(1) + torch.stack([torch.zeros_like(self.similarity), *self.rest.values()]).sum(0)

    def top(self, row: int = 0, count: int = 10) -> list[tuple[str, float]]:
        """Return the `count` parts with the largest absolute contribution to a row, as (name, contribution)."""
        values = self.parts[row]
        strongest = values.abs().topk(min(count, len(values))).indices.tolist()
        return [(self._name(i), float(values[i])) for i in strongest if values[i] != 0]

    def _name(self, part: int) -> str:
        return str(part) if self.names is None else self.names[part]
