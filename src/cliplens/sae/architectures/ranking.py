"""Find the largest pre-activations of a batch without ranking all of them.

A sample of the values gives a bound that a few times as many values exceed as are wanted. Only these candidates are
ranked. If the bound turns out unsuitable, all values are ranked, so the result is the same. On an accelerator all
values are ranked at once, which is faster there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_STRIDE = 509
"""One of so many values of a batch is sampled. The stride is prime, so it visits every latent."""
_ROW_STRIDE = 16
"""One of so many values of a row is sampled."""
_WORTH_BOUNDING = 2**16
"""Values from which a bound pays."""
_BLOCK = 2**18
"""Values compared at a time, so that they stay in the processor's cache."""
_SLACK = 8.0
"""Roundings that a bound may be off by, in units of the last place."""
_WORD, _ALL_BELOW = 8, 0x0101010101010101
"""Comparisons are read eight at a time; the value of eight true ones."""


@dataclass(frozen=True)
class Ranked:
    """Values by which the latents of a batch are ranked: `(product + bias) * norm`, not computed until needed."""

    product: Float[Tensor, "batch d_sae"]
    bias: Float[Tensor, " d_sae"] | None = None
    """None adds nothing."""
    norm: Float[Tensor, " d_sae"] | None = None
    """Decoder norms, at least 0; None multiplies by nothing."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and of latents."""
        return self.product.shape[0], self.product.shape[1]

    def at(self, flat: Int[Tensor, " value"]) -> Float[Tensor, " value"]:
        """Return the values at flat indices."""
        latents = flat % self.shape[1]
        return self._scaled(self.pre(flat, latents), latents)

    def pre(self, flat: Int[Tensor, " value"], latents: Int[Tensor, " value"]) -> Float[Tensor, " value"]:
        """Return the pre-activations at flat indices, whose latents are given: values before the norm."""
        found = self.product.view(-1).index_select(0, flat)
        return found if self.bias is None else found + self.bias.index_select(0, latents)

    def columns(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "batch latent"]:
        """Return the pre-activations of some latents."""
        found = self.product.index_select(1, latents)
        return found if self.bias is None else found + self.bias[latents]

    def rows(self, part: slice) -> Float[Tensor, "row d_sae"]:
        """Return all values of some rows."""
        pre = self.product[part] if self.bias is None else self.product[part] + self.bias
        if self.norm is None:
            return pre
        return pre * self.norm if self.bias is None else pre.mul_(self.norm)

    def bounded(self, bound: Float[Tensor, ""]) -> Float[Tensor, " d_sae"]:
        """Return for each latent the product below which its value is below `bound`, whatever the rounding."""
        reached = bound if self.norm is None else bound / self.norm
        least = reached if self.bias is None else reached - self.bias
        size = reached.abs() if self.bias is None else reached.abs() + self.bias.abs()
        return (least - _SLACK * torch.finfo(least.dtype).eps * size).expand(self.shape[1])

    def _scaled(self, pre: Float[Tensor, " value"], latents: Int[Tensor, " value"]) -> Float[Tensor, " value"]:
        return pre if self.norm is None else pre * self.norm.index_select(0, latents)


def strongest(ranked: Ranked, count: int) -> Int[Tensor, " firing"]:
    """Return the flat indices of the `count` largest values of a batch, sorted. Ties at the end are broken arbitrarily.

    A nan counts as the largest value, so that it reaches the loss.

    >>> strongest(Ranked(torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.0]])), 2).tolist()
    [1, 3]
    """
    candidates = candidates_of_batch(ranked, count)
    if candidates is None:
        return ranked.rows(slice(None)).flatten().topk(count, sorted=False).indices.sort().values
    chosen = ranked.at(candidates).topk(count, sorted=False).indices
    return candidates.index_select(0, chosen).sort().values


def strongest_of_rows(ranked: Ranked, k: int) -> Int[Tensor, " firing"]:
    """Return the flat indices of the `k` largest values of each row, sorted. Ties are broken arbitrarily.

    >>> strongest_of_rows(Ranked(torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.0]])), 1).tolist()
    [1, 3]
    """
    n_rows, d_sae = ranked.shape
    if not _bounds_pay(ranked, k * n_rows) or 4 * k * _ROW_STRIDE > d_sae:
        return _flat(ranked.rows(slice(None)).topk(k, sorted=False).indices, d_sae)
    step = max(1, _BLOCK // d_sae)
    return torch.cat([_of_block(ranked, slice(start, start + step), k) for start in range(0, n_rows, step)])


def candidates_of_batch(ranked: Ranked, count: int) -> Int[Tensor, " candidate"] | None:
    """Return sorted flat indices that hold the `count` largest values, or None if all values must be ranked."""
    if not _bounds_pay(ranked, count):
        return None
    sampled = torch.arange(0, ranked.product.numel(), _STRIDE)
    bound = ranked.at(sampled).topk(2 * count // _STRIDE + 32, sorted=False).values.min()
    candidates = _indices_of_false(ranked.product < ranked.bounded(bound))
    return candidates if count <= len(candidates) <= 16 * count + 64 * _STRIDE else None


def _bounds_pay(ranked: Ranked, count: int) -> bool:
    size = ranked.product.numel()
    return ranked.product.device.type == "cpu" and size >= _WORTH_BOUNDING and 16 * count <= size


def _of_block(ranked: Ranked, part: slice, k: int) -> Int[Tensor, " firing"]:
    """Return the flat indices of the `k` largest values of each row of a block, sorted."""
    values = ranked.rows(part)
    n_rows, d_sae = values.shape
    offset = part.start * d_sae
    sample = values[:, ::_ROW_STRIDE]
    bound = sample.topk(3 * k // _ROW_STRIDE + 6, sorted=False).values.amin(-1, keepdim=True)
    flat = _indices_of_false(values < bound)
    rows = flat.div(d_sae, rounding_mode="floor")
    counts = torch.bincount(rows, minlength=n_rows)
    if int(counts.min()) < k or int(counts.max()) > d_sae // 4:
        return _flat(values.topk(k, sorted=False).indices, d_sae) + offset
    starts = counts.cumsum(0) - counts
    padded = values.new_full((n_rows, int(counts.max())), -torch.inf)
    padded[rows, torch.arange(len(flat)) - starts[rows]] = values.view(-1).index_select(0, flat)
    chosen = padded.topk(k, sorted=False).indices.sort().values
    return flat.index_select(0, (chosen + starts[:, None]).flatten()) + offset


def _flat(latents: Int[Tensor, "batch k"], d_sae: int) -> Int[Tensor, " firing"]:
    """Return flat indices of latents per row, sorted."""
    rows = torch.arange(len(latents), device=latents.device)[:, None]
    return (latents.sort().values + rows * d_sae).flatten()


def _indices_of_false(mask: Bool[Tensor, "batch d_sae"]) -> Int[Tensor, " false"]:
    """Return the flat indices of the few false values of a mask, sorted.

    >>> _indices_of_false(torch.tensor([[True, False, True], [False, True, True]])).tolist()
    [1, 3]
    """
    flat = mask.view(-1)
    if len(flat) % _WORD:
        return flat.logical_not().nonzero().squeeze(1)
    words = (flat.view(torch.int64) != _ALL_BELOW).nonzero().squeeze(1)
    within = flat.view(-1, _WORD).index_select(0, words).logical_not_().view(-1).nonzero().squeeze(1)
    return words.index_select(0, within.div(_WORD, rounding_mode="floor")) * _WORD + within % _WORD
