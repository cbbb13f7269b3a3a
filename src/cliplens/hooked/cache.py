"""Caches: TransformerLens' own for a tower, and one for both towers that gives each tower's."""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.ActivationCache import ActivationCache

from cliplens.errors import InputError, UnknownNameError, unknown_name
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.pooler import HookedPooler
from cliplens.sites import SIDES, Side


class ClipActivationCache(ActivationCache):
    """TransformerLens' cache over a tower; its decompositions sum to the residual stream here too.

    Behind a `ln_pre` the raw position embeddings are no part of the stream: there `hook_embed` is the stream that
    enters block 0, and the position embeddings are left out of every sum.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: AbstractTower, has_batch_dim: bool = True) -> None:
        super().__init__(cache_dict, model, has_batch_dim)
        if not model.adds_pos_embed:
            self.has_pos_embed = False

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "ClipActivationCache":
        """A cache of some of the samples, as in TransformerLens."""
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ClipActivationCache(sliced.cache_dict, self.model, sliced.has_batch_dim)

    def compute_head_results(self) -> None:
        """Each head's own contribution to the stream, from the cached z, as `hook_result` would give it."""
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if name not in self.cache_dict:
                z = self.cache_dict[f"blocks.{layer}.attn.hook_z"]
                whole = z if self.has_batch_dim else z.unsqueeze(0)
                result = torch.einsum("bphd,hdm->bphm", block.attn.pre_output(whole), block.attn.W_O)
                self.cache_dict[name] = result if self.has_batch_dim else result[0]

    def decompose_resid(self, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens.

        Raises:
            InputError: the tower's blocks are closed, so that what attention and MLP add is not known.
        """
        check_open(self.model)
        return super().decompose_resid(*args, **kwargs)

    def stack_head_results(self, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens.

        Raises:
            InputError: a norm stands between the heads and the stream, so that heads do not add up.
        """
        self._check_parts_add_up("heads")
        return super().stack_head_results(*args, **kwargs)

    def get_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens.

        Raises:
            InputError: a norm stands between the neurons and the stream, so that neurons do not add up.
        """
        self._check_parts_add_up("neurons")
        return super().get_neuron_results(*args, **kwargs)

    def apply_ln_to_stack(self, residual_stack: Tensor, layer: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """As in TransformerLens.

        Raises:
            InputError: the final norm is asked for, and the tower applies it to pooled queries and not to the stream.
        """
        if layer in (None, -1, self.model.cfg.n_layers):
            self._check_final_norm()
        return super().apply_ln_to_stack(residual_stack, layer, *args, **kwargs)

    def logit_attrs(
        self, residual_stack: Tensor, tokens: Any, incorrect_tokens: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """What each part of the stack adds to concepts of the tower's bank, as in TransformerLens.

        Where the tower reads its output, all parts' attributions and `bank_offset` sum to the unnormalised output's
        product with the concept's unit embedding. Ids [batch] may go with a stack over all positions.
        """
        if residual_stack.ndim == 4:
            tokens, incorrect_tokens = _over_positions(tokens), _over_positions(incorrect_tokens)
        return super().logit_attrs(residual_stack, tokens, incorrect_tokens, *args, **kwargs)

    def _check_parts_add_up(self, parts: str) -> None:
        check_open(self.model)
        for layer, block in enumerate(self.model.blocks):
            if block.post_norm or (parts == "heads" and block.after_attn is not None):
                raise InputError(
                    expected=f"blocks whose {parts} write to the stream directly",
                    found=f"block {layer}, where a norm stands in between",
                    fix="use decompose_resid, whose attn_out and mlp_out do add up",
                )

    def _check_final_norm(self) -> None:
        scale = self.cache_dict.get("ln_final.hook_scale")
        stream = self.cache_dict.get(f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post")
        if scale is None or stream is None or _normalises(self.model.ln_final, stream, scale):
            return
        if scale.shape[-2] != 1 or any(isinstance(m, HookedPooler) for m in self.model.modules()):
            raise InputError(
                expected="a tower whose final norm reads the stream, or an average of it",
                found="one that normalises the queries of an attention pooler",
                fix="decompose with apply_ln=False, or read hook_pooled",
            )


def _normalises(norm: Any, stream: Tensor, scale: Tensor) -> bool:
    """Whether the scale is this stream's own."""
    centred = (stream - stream.mean(-1, keepdim=True) if norm.centred else stream).to(scale.dtype)
    own = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return own.shape == scale.shape and torch.allclose(own, scale, rtol=0.05)


def check_open(tower: AbstractTower) -> None:
    """Refuse a tower that is hooked at the ends of its blocks or stages only.

    Raises:
        InputError: says how deep its hooks go.
    """
    if tower.level != "heads":
        raise InputError(
            expected="a tower with hooks inside its blocks, on heads and MLPs",
            found=f"{tower.cfg.model_name or tower.cfg.family}, {tower.cfg.side}, hooked at its {tower.level}",
            fix="read what its hooks give, tower.hook_dict, or attribute at hook_embedding",
        )


def _over_positions(tokens: Any) -> Any:
    return tokens.unsqueeze(1) if isinstance(tokens, Tensor) and tokens.ndim == 1 else tokens


class JointCache(dict[str, Tensor]):
    """Activations of both towers under joint names; `.vision` and `.text` are the towers' own caches."""

    def __init__(
        self, activations: dict[str, Tensor], towers: dict[Side, AbstractTower], has_batch_dim: bool = True
    ) -> None:
        super().__init__(activations)
        self._towers = towers
        self._has_batch_dim = has_batch_dim

    def __missing__(self, key: Any) -> Tensor:
        """Return the activation of a bare name that only one tower has kept.

        Raises:
            UnknownNameError: both towers have it, or neither; the nearest names are listed.
        """
        joined = [name for name in self if isinstance(key, str) and name.partition(".")[2] == key]
        if len(joined) == 1:
            return self[joined[0]]
        if joined:
            raise UnknownNameError(
                expected="the name of one tower's activation",
                found=f"{key!r}, which both towers have",
                fix=f"use {' or '.join(map(repr, joined))}, or cache.vision and cache.text",
            )
        if not isinstance(key, str):
            raise UnknownNameError(
                expected=f"the joint name of an activation, such as {next(iter(self), None)!r}",
                found=repr(key),
                fix=f"ask a tower's own cache, cache.vision[{key!r}] or cache.text[{key!r}]; joint names look like"
                " 'vision.blocks.1.hook_resid_post'",
            )
        raise unknown_name("activation in this cache", key, self)

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
                expected=f"a model with a {side} tower",
                found=f"towers {sorted(self._towers)} of {SIDES}",
                fix="read those",
            )
        prefix = f"{side}."
        own = {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}
        return ClipActivationCache(own, self._towers[side], self._has_batch_dim)
