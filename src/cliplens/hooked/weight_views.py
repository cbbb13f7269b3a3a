"""The weights of a whole tower under TransformerLens' names: `W_Q`, `W_in`, `QK`, `W_E`, ..., stacked over layers.

They are the stock model's weights as they are now: nothing is folded or centred. LayerScale is part of `W_O` and
`W_out`, so that they write what the residual stream receives. Where a layer has no bias, its row is zero.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.FactoredMatrix import FactoredMatrix

from cliplens.errors import InputError
from cliplens.hooked.bank import BankedTower
from cliplens.hooked.cache import check_open
from cliplens.hooked.part import Recorder


class WeightViews(BankedTower):
    """Views of the weights of every layer of a tower.

    All of them raise InputError where the tower has no hooks inside its blocks, or blocks of different sizes.

    >>> import cliplens
    >>> text = cliplens.load("world", device="cpu").text
    >>> text.W_Q.shape == (text.cfg.n_layers, text.cfg.n_heads, text.cfg.d_model, text.cfg.d_head)
    True
    """

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights."""
        return self._stacked(lambda block: block.attn.W_Q)

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Key weights."""
        return self._stacked(lambda block: block.attn.W_K)

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Value weights."""
        return self._stacked(lambda block: block.attn.W_V)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output weights of the heads."""
        return self._stacked(lambda block: block.attn.W_O)

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases."""
        return self._stacked(lambda block: _or_zero(block.attn.b_Q, block.attn.W_Q[:, 0]))

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Key biases."""
        return self._stacked(lambda block: _or_zero(block.attn.b_K, block.attn.W_K[:, 0]))

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Value biases."""
        return self._stacked(lambda block: _or_zero(block.attn.b_V, block.attn.W_V[:, 0]))

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of attention."""
        return self._stacked(lambda block: _or_zero(block.attn.b_O, block.attn.W_O[0, 0]))

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """Input weights of the MLPs."""
        return self._stacked(lambda block: block.mlp.W_in)

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"] | None:
        """Weights of the gates of the MLPs; None where the MLPs are not gated."""
        check_open(self)
        if self.blocks[0].mlp.fc_gate is None:
            return None
        return self._stacked(lambda block: block.mlp.W_gate)

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """Output weights of the MLPs."""
        return self._stacked(lambda block: block.mlp.W_out)

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """Input biases of the MLPs."""
        return self._stacked(lambda block: _or_zero(block.mlp.b_in, block.mlp.W_in[0]))

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Output biases of the MLPs."""
        return self._stacked(lambda block: _or_zero(block.mlp.b_out, block.mlp.W_out[0]))

    @property
    def QK(self) -> FactoredMatrix:
        """The matrices [layer, head, d_model, d_model] of the scores of queries with keys, before their factor."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """The matrices [layer, head, d_model, d_model] from attended positions to the stream."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def W_pos(self) -> Float[Tensor, "pos d_model"]:
        """The position embeddings, as they are added to the stream.

        Raises:
            InputError: the tower adds none (it has rotary or relative positions, or its text library adds them inside).
        """
        if "hook_pos_embed" not in self.hook_dict:
            raise _absent(self, "position embeddings that are added to the stream")
        got: dict[str, Tensor] = {}
        handle = self.hook_dict["hook_pos_embed"].register_forward_hook(Recorder(got, "W_pos"))
        try:
            with self.evaluating():
                self.embed(self.blank_input())
        finally:
            handle.remove()
        return got["W_pos"][0]

    @property
    def W_U(self) -> Float[Tensor, "d_model concept"]:
        """The directions of the concepts of the bank in the output of the final norm, the unembedding of a tower.

        That output times `W_U`, plus `b_U`, is |output| times the cosine of output and concept, at the position (or for
        the mean of positions) that the tower reads. It has the gain and offset of the norm, which
        `ln_final.hook_normalized` has not: multiply that by `ln_final.w` and add `ln_final.b` first.

        Raises:
            InputError: no concepts were registered (`clip.set_text_bank`), or the head of the tower is another one.
        """
        return self.unembedding()[0]

    @property
    def b_U(self) -> Float[Tensor, " concept"]:
        """The constant part of each concept's dot product that the projection adds; see `W_U`."""
        return self.unembedding()[1]

    def all_head_labels(self) -> list[str]:
        """Return the names of all heads, "L0H0", "L0H1", ...: the order of `W_Q` with its first two axes joined."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def _stacked(self, weight: Callable[[Any], Tensor]) -> Tensor:
        check_open(self)
        found = [weight(block) for block in self.blocks]
        if any(one.shape != found[0].shape for one in found):
            raise InputError(
                expected="blocks of one size, whose weights can be stacked",
                found=", ".join(sorted({str(tuple(one.shape)) for one in found})),
                fix="read the weights of each block: tower.blocks[0].attn.W_Q",
            )
        return torch.stack(found)


def patch_weights(stock: nn.Module, d_model: int) -> Float[Tensor, "pixel d_model"] | None:
    """Return the weights from the pixels of a patch (channel, row, column) to the stream; None where there are none."""
    found = [
        module
        for module in stock.modules()
        if isinstance(module, nn.Conv2d)
        and (module.in_channels, module.out_channels, module.groups) == (3, d_model, 1)
        and module.kernel_size == module.stride
    ]
    return found[0].weight.flatten(1).T if len(found) == 1 else None


def _or_zero(bias: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if bias is None else bias


def _absent(tower: BankedTower, what: str) -> InputError:
    return InputError(
        expected=f"a tower with {what}",
        found=f"{tower.cfg.model_name or tower.cfg.family}, {tower.cfg.side}, without them",
        fix="read the activations instead: tower.hook_dict lists the hooks",
    )
