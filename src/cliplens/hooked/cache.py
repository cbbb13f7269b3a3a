"""Activation caches: TransformerLens' class for a tower, and a cache of both towers."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.ActivationCache import ActivationCache

from cliplens.errors import InputError, UnknownNameError, unknown_name
from cliplens.hooked.base import AbstractTower
from cliplens.hooked.pooler import HookedPooler
from cliplens.sites import SIDES, Side


class ClipActivationCache(ActivationCache):
    """TransformerLens' cache for a tower. Its decompositions sum to the residual stream, as in TransformerLens.

    In towers with `ln_pre`, `hook_embed` is the stream that enters block 0 and already contains the position
    embeddings. They are left out of every sum there.
    """

    def __init__(self, cache_dict: dict[str, Tensor], model: AbstractTower, has_batch_dim: bool = True) -> None:
        super().__init__(cache_dict, model, has_batch_dim)
        if not model.adds_pos_embed:
            self.has_pos_embed = False

    def __getitem__(self, key: Any) -> Tensor:
        """Return an activation by its name, or by the short form `("resid_post", layer)`.

        Raises:
            UnknownNameError: it is not in the cache; similar names are listed.
        """
        try:
            return super().__getitem__(key)
        except (KeyError, TypeError, IndexError) as error:
            raise unknown_name("activation in this cache", key, self.cache_dict) from error

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> "ClipActivationCache":
        """Return a cache of some of the samples, as in TransformerLens."""
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ClipActivationCache(sliced.cache_dict, self.model, sliced.has_batch_dim)

    def compute_head_results(self) -> None:
        """Compute the contribution of each head to the stream (`hook_result`) from the cached z."""
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if name not in self.cache_dict:
                z = self.cache_dict[f"blocks.{layer}.attn.hook_z"]
                whole = z if self.has_batch_dim else z.unsqueeze(0)
                result = torch.einsum("bphd,hdm->bphm", block.attn.pre_output(whole), block.attn.W_O)
                self.cache_dict[name] = result if self.has_batch_dim else result[0]

    def decompose_resid(self, *args: Any, **kwargs: Any) -> Any:
        """Decompose the residual stream into the outputs of attention and MLPs, as in TransformerLens.

        Raises:
            InputError: the tower has no hooks inside its blocks.
        """
        check_open(self.model)
        return super().decompose_resid(*args, **kwargs)

    def stack_head_results(self, *args: Any, **kwargs: Any) -> Any:
        """Stack the contributions of all heads to the stream, as in TransformerLens.

        Raises:
            InputError: a norm between the heads and the stream makes their sum non-linear.
        """
        self._check_parts_add_up("heads")
        return super().stack_head_results(*args, **kwargs)

    def get_neuron_results(self, *args: Any, **kwargs: Any) -> Any:
        """Return the contributions of the neurons of an MLP, as in TransformerLens.

        Raises:
            InputError: a norm between the neurons and the stream makes their sum non-linear.
        """
        self._check_parts_add_up("neurons")
        return super().get_neuron_results(*args, **kwargs)

    def apply_ln_to_stack(
        self,
        residual_stack: Float[Tensor, "component *batch_and_pos d_model"],
        layer: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Apply the frozen scale of a layer norm to a stack of components, as in TransformerLens.

        Raises:
            InputError: the final norm is requested, and the tower applies it to pooled queries, not to the stream.
        """
        if layer in (None, -1, self.model.cfg.n_layers):
            self._check_final_norm()
        return super().apply_ln_to_stack(residual_stack, layer, *args, **kwargs)

    def logit_attrs(
        self,
        residual_stack: Float[Tensor, "component *batch_and_pos d_model"],
        tokens: Any,
        incorrect_tokens: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Return the contribution of each component of the stack to concepts of the bank, as in TransformerLens.

        At the position that the tower reads its output from, the contributions and `bank_offset` sum to |output| times
        the cosine of output and concept. Ids [batch] can be combined with a stack over all positions.
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
                    found=f"block {layer}, with a norm in between",
                    fix="use decompose_resid: attn_out and mlp_out add up",
                )

    def _check_final_norm(self) -> None:
        scale = self.cache_dict.get("ln_final.hook_scale")
        stream = self.cache_dict.get(f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post")
        if scale is None or stream is None or _normalises(self.model.ln_final, stream, scale):
            return
        if scale.shape[-2] != 1 or any(isinstance(m, HookedPooler) for m in self.model.modules()):
            raise InputError(
                expected="a tower whose final norm is applied to the stream or to its mean",
                found="a tower that normalises the queries of an attention pooler",
                fix="decompose with apply_ln=False, or read hook_pooled",
            )


def _normalises(norm: Any, stream: Tensor, scale: Tensor) -> bool:
    """Return whether the final norm is computed from this stream."""
    centred = (stream - stream.mean(-1, keepdim=True) if norm.centred else stream).to(scale.dtype)
    own = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return own.shape == scale.shape and torch.allclose(own, scale, rtol=0.05)


def check_open(tower: AbstractTower) -> None:
    """Check that the tower has hooks inside its blocks.

    Raises:
        InputError: it has hooks at the ends of its blocks or stages only; the message names its `level`.
    """
    if tower.level != "heads":
        raise InputError(
            expected="a tower with hooks inside its blocks, on heads and MLPs",
            found=f"{tower.cfg.model_name or tower.cfg.family}, {tower.cfg.side}, hooked at its {tower.level}",
            fix="read hooks listed in tower.hook_dict, or attribute at hook_embedding",
        )


def _over_positions(tokens: Any) -> Any:
    return tokens.unsqueeze(1) if isinstance(tokens, Tensor) and tokens.ndim == 1 else tokens


class JointCache(dict[str, Tensor]):
    """Activations of both towers under joint names. `.vision` and `.text` are the caches of the towers."""

    def __init__(
        self, activations: dict[str, Tensor], towers: dict[Side, AbstractTower], has_batch_dim: bool = True
    ) -> None:
        super().__init__(activations)
        self._towers = towers
        self._has_batch_dim = has_batch_dim

    def __missing__(self, key: Any) -> Tensor:
        """Return the activation of a name without `vision.` or `text.`, if only one tower has it in the cache.

        Raises:
            UnknownNameError: both towers have it, or neither (the nearest names are listed).
        """
        joined = [name for name in self if isinstance(key, str) and key and name.partition(".")[2] == key]
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
                fix=f"use cache.vision[{key!r}] or cache.text[{key!r}], or a joint name such as"
                " 'vision.blocks.1.hook_resid_post'",
            )
        raise unknown_name("activation in this cache", key, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__} with keys {list(self)}"

    @property
    def vision(self) -> ClipActivationCache:
        """The cache of the vision tower, under its own hook names."""
        return self._of("vision")

    @property
    def text(self) -> ClipActivationCache:
        """The cache of the text tower, under its own hook names."""
        return self._of("text")

    def _of(self, side: Side) -> ClipActivationCache:
        if side not in self._towers:
            raise InputError(
                expected=f"a model with a {side} tower",
                found=f"towers {sorted(self._towers)} of {SIDES}",
                fix="read a tower that the model has",
            )
        prefix = f"{side}."
        own = {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}
        return ClipActivationCache(own, self._towers[side], self._has_batch_dim)
