"""Forward and backward passes over the firing latents only, for training classes of the TopK family.

Of the dense products over all `d_sae` latents in a stock step (encode, decode, three more in the backward pass) only
the encode product remains. The others touch the firing latents only:

    reconstruction   for each row, a weighted sum of decoder rows
    decoder gradient for each latent, a weighted sum of the output gradients of the rows it fired in
    encoder gradient the same with inputs
    b_dec gradient   minus the encoder times the gradient of b_enc: one vector

Firings are kept as sorted (row, latent) pairs, so rows may hold different numbers of them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

_STRIDE = 61
"""Every 61st value is sampled to bound the search; an odd stride samples every latent."""
_WORTH_BOUNDING = 2**16


def strongest(ranked: Float[Tensor, "batch d_sae"], count: int) -> Int[Tensor, " firing"]:
    """Return the flat indices of the `count` largest values of a batch, sorted. Ties at the end are broken arbitrarily.

    On a CPU, a sample of the values gives a bound that about `2 * count` values exceed, and only these are ranked. If
    the bound is unsuitable, all values are ranked. The result is the same.

    >>> strongest(torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.0]]), 2).tolist()
    [1, 3]
    """
    flat = ranked.flatten()
    candidates = _candidates(flat, count)
    if candidates is None:
        return flat.topk(count, sorted=False).indices.sort().values
    chosen = flat[candidates].topk(count, sorted=False).indices
    return candidates[chosen].sort().values


def strongest_of_rows(ranked: Float[Tensor, "batch d_sae"], k: int) -> Int[Tensor, " firing"]:
    """Return the flat indices of the `k` largest values of each row, sorted.

    >>> strongest_of_rows(torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.0]]), 1).tolist()
    [1, 3]
    """
    at = ranked.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
    return (at + torch.arange(len(ranked), device=ranked.device)[:, None] * ranked.shape[1]).flatten()


def _candidates(flat: Float[Tensor, " value"], count: int) -> Int[Tensor, " candidate"] | None:
    if flat.device.type != "cpu" or len(flat) < _WORTH_BOUNDING or 16 * count > len(flat):
        return None
    sample = flat[::_STRIDE]
    bound = sample.topk(2 * count // _STRIDE + 32, sorted=False).values.min()
    candidates = (~(flat < bound)).nonzero().squeeze(1)  # Keep nan, so that it reaches the loss.
    return candidates if count <= len(candidates) <= 16 * count else None


class Encode(torch.autograd.Function):
    """Values of the firing latents before any scaling, with their (row, latent), and pre-activations of dead latents.

    Rescaling by decoder norms changes the ranking of latents only. It cancels in the values, so it needs no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "batch d_in"],
        W_enc: Float[Tensor, "d_in d_sae"],
        b_enc: Float[Tensor, " d_sae"],
        b_in: Float[Tensor, " d_in"] | None,
        norm: Float[Tensor, " d_sae"] | None,
        choose: Callable[[Tensor], Tensor],
        dead_at: Int[Tensor, " dead"] | None,
    ) -> tuple[Tensor, ...]:
        """Return values [firing], rows [firing], latents [firing] and dead pre-activations [batch, dead].

        `choose` returns the flat indices of the firing latents, sorted.
        """
        centred = x if b_in is None else x - b_in
        pre = torch.addmm(b_enc, centred, W_enc).to(W_enc.dtype)
        flat = choose(pre if norm is None else pre * norm)
        rows = flat.div(pre.shape[1], rounding_mode="floor")
        at = flat - rows * pre.shape[1]
        values = pre.view(-1)[flat].relu_()
        dead_pre = pre.new_zeros(len(pre), 0) if dead_at is None else pre.index_select(1, dead_at)
        ctx.save_for_backward(centred, W_enc, values, rows, at, dead_at)
        ctx.applies_b_dec = b_in is not None
        ctx.mark_non_differentiable(rows, at)
        return values, rows, at, dead_pre

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the encoder, of its bias and of the bias subtracted from the input."""
        centred, W_enc, values, rows, at, dead_at = ctx.saved_tensors
        of_values, _, _, of_dead = gradients
        of_pre = of_values * (values > 0)
        by_latent = sum_by_latent(centred, rows, at, of_pre, W_enc.shape[1])
        of_b_enc = of_pre.new_zeros(W_enc.shape[1]).index_add_(0, at, of_pre)
        if dead_at is not None and len(dead_at):
            by_latent.index_add_(0, dead_at, of_dead.T @ centred)
            of_b_enc.index_add_(0, dead_at, of_dead.sum(0))
        of_b_in = -(W_enc @ of_b_enc) if ctx.applies_b_dec else None
        return None, by_latent.T, of_b_enc, of_b_in, None, None, None


class Decode(torch.autograd.Function):
    """For each row, the sum of the decoder rows of its firing latents, weighted by their values."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        values: Float[Tensor, " firing"],
        rows: Int[Tensor, " firing"],
        at: Int[Tensor, " firing"],
        W_dec: Float[Tensor, "d_sae d_in"],
        n_rows: int,
    ) -> Float[Tensor, "batch d_in"]:
        """Return the reconstruction without its bias. `rows` must be sorted."""
        starts = starts_of(rows, n_rows)
        ctx.save_for_backward(values, rows, at, starts, W_dec)
        return F.embedding_bag(at, W_dec, starts, mode="sum", per_sample_weights=values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the values and of the decoder."""
        values, rows, at, starts, W_dec = ctx.saved_tensors
        of_out = gradients[0].contiguous()
        dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(of_out, W_dec, at, starts, rows, 0)
        return dots, None, None, sum_by_latent(of_out, rows, at, values, len(W_dec)), None


def sum_by_latent(
    inputs: Float[Tensor, "batch d_in"],
    rows: Int[Tensor, " firing"],
    at: Int[Tensor, " firing"],
    weights: Float[Tensor, " firing"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """Return for each latent the weighted sum of the inputs of the rows it fired in."""
    order = at.argsort(stable=True)
    return F.embedding_bag(
        rows[order], inputs, starts_of(at, d_sae), mode="sum", per_sample_weights=weights.to(inputs.dtype)[order]
    )


def starts_of(numbers: Int[Tensor, " firing"], size: int) -> Int[Tensor, " size"]:
    """Return the index of the first occurrence of each number in the sorted `numbers`.

    >>> starts_of(torch.tensor([0, 0, 2]), 4).tolist()
    [0, 2, 2, 3]
    """
    counts = numbers.new_zeros(size).index_add_(0, numbers, torch.ones_like(numbers))
    return counts.cumsum(0) - counts
