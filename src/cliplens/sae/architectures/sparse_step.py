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

from cliplens.sae.architectures.ranking import Ranked


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
        choose: Callable[[Ranked], Tensor],
        dead_at: Int[Tensor, " dead"] | None,
    ) -> tuple[Tensor, ...]:
        """Return values, rows, latents and order, each [firing], and dead pre-activations [batch, dead].

        `choose` returns the flat indices of the firing latents, sorted. `order` sorts the firings by latent.
        """
        centred = x if b_in is None else x - b_in
        ranked = Ranked(*_product(centred, W_enc, b_enc), norm)
        dead_pre = W_enc.new_zeros(len(x), 0) if dead_at is None else ranked.columns(dead_at)
        flat = choose(ranked)  # It may change the product.
        rows = flat.div(W_enc.shape[1], rounding_mode="floor")
        at = flat - rows * W_enc.shape[1]
        order = at.argsort(stable=True)
        values = ranked.pre(flat, at).relu_()
        ctx.save_for_backward(centred, W_enc, values, rows, at, order, dead_at)
        ctx.applies_b_dec = b_in is not None
        ctx.mark_non_differentiable(rows, at, order)
        return values, rows, at, order, dead_pre

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the encoder, of its bias and of the bias subtracted from the input."""
        centred, W_enc, values, rows, at, order, dead_at = ctx.saved_tensors
        of_values, of_dead = gradients[0], gradients[-1]
        of_pre = of_values * (values > 0)
        by_latent = sum_by_latent(centred, rows, at, order, of_pre, W_enc.shape[1])
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
        order: Int[Tensor, " firing"],
        W_dec: Float[Tensor, "d_sae d_in"],
        n_rows: int,
    ) -> Float[Tensor, "batch d_in"]:
        """Return the reconstruction without its bias. `rows` must be sorted; `order` sorts the firings by latent."""
        ctx.save_for_backward(values, rows, at, order, W_dec)
        return F.embedding_bag(at, W_dec, starts_of(rows, n_rows), mode="sum", per_sample_weights=values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the values and of the decoder."""
        values, rows, at, order, W_dec = ctx.saved_tensors
        of_out = gradients[0].contiguous()
        of_W_dec = sum_by_latent(of_out, rows, at, order, values, len(W_dec)) if ctx.needs_input_grad[4] else None
        return dots_by_latent(of_out, W_dec, rows, at, order), None, None, None, of_W_dec, None


def sum_by_latent(
    inputs: Float[Tensor, "batch d_in"],
    rows: Int[Tensor, " firing"],
    at: Int[Tensor, " firing"],
    order: Int[Tensor, " firing"],
    weights: Float[Tensor, " firing"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """Return for each latent the weighted sum of the inputs of the rows it fired in. `order` sorts `at`."""
    return F.embedding_bag(
        rows.index_select(0, order),
        inputs,
        starts_of(at, d_sae),
        mode="sum",
        per_sample_weights=weights.to(inputs.dtype).index_select(0, order),
    )


def dots_by_latent(
    inputs: Float[Tensor, "batch d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    rows: Int[Tensor, " firing"],
    at: Int[Tensor, " firing"],
    order: Int[Tensor, " firing"],
) -> Float[Tensor, " firing"]:
    """Return the product of each firing's input row and decoder row. `order` sorts `at`.

    Firings are visited latent by latent, so that each decoder row is read from memory once.
    """
    weights_of = torch.ops.aten._embedding_bag_per_sample_weights_backward
    sorted_at = at.index_select(0, order)
    found = weights_of(W_dec, inputs, rows.index_select(0, order), starts_of(at, len(W_dec)), sorted_at, 0)
    return torch.empty_like(found).scatter_(0, order, found)


def _product(
    x: Float[Tensor, "batch d_in"], W_enc: Float[Tensor, "d_in d_sae"], b_enc: Float[Tensor, " d_sae"]
) -> tuple[Float[Tensor, "batch d_sae"], Float[Tensor, " d_sae"] | None]:
    """Return the encode product and the bias that is still to be added; on a CPU adding it costs a pass over memory."""
    if x.device.type == "cpu":
        return (x @ W_enc).to(W_enc.dtype), b_enc
    return torch.addmm(b_enc, x, W_enc).to(W_enc.dtype), None


def starts_of(numbers: Int[Tensor, " firing"], size: int) -> Int[Tensor, " size"]:
    """Return the index of the first occurrence of each number in the sorted `numbers`.

    >>> starts_of(torch.tensor([0, 0, 2]), 4).tolist()
    [0, 2, 2, 3]
    """
    counts = numbers.new_zeros(size).index_add_(0, numbers, torch.ones_like(numbers))
    return counts.cumsum(0) - counts
