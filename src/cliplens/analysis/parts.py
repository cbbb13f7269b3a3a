"""A similarity taken apart: parts that sum to it."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """Parts of one cosine similarity per row; `parts.sum(1)` and all of `rest` add up to `similarity`.

    Values are in units of cosine similarity. They say what the parts contribute to this number as the model computed
    it, with norms held at the values they had; they do not say what the number would be without a part, because then
    norms, attention and later blocks would answer too. Ablate through hooks to learn that.
    """

    parts: Float[Tensor, "batch part"]
    """What is attributed to: latents, or heads and blocks, in the order of `names`."""
    similarity: Float[Tensor, " batch"]
    """The model's own, in [-1, 1]."""
    rest: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    """What no part carries, each by its name."""
    names: tuple[str, ...] | None = None
    """What the parts are called; None: their numbers (latents)."""

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Everything added up: equal to `similarity` up to rounding."""
        return self.parts.sum(1) + torch.stack([torch.zeros_like(self.similarity), *self.rest.values()]).sum(0)

    def top(self, row: int = 0, count: int = 10) -> list[tuple[str, float]]:
        """The parts that move this row's similarity most, up or down, strongest first."""
        values = self.parts[row]
        strongest = values.abs().topk(min(count, len(values))).indices.tolist()
        return [(self._name(i), float(values[i])) for i in strongest if values[i] != 0]

    def _name(self, part: int) -> str:
        return str(part) if self.names is None else self.names[part]
