"""A tower: one encoder of a two-tower model, as a TransformerLens root.

`tower(inputs)` is the unnormalised output of the stock encoder, bit for bit while no hook is active. An adapter
subclasses `HookedVisionTower` or `HookedTextTower`. It sets the blocks and defines `embed` (inputs to stream), `pool`
(stream to one vector) and `project`. The rest is defined here.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked.base import Inputs
from cliplens.hooked.cache import ClipActivationCache
from cliplens.hooked.config import TowerConfig
from cliplens.hooked.guard import Guard
from cliplens.hooked.part import HookedPart, Recorder, active, call_hook, hook_point
from cliplens.hooked.root import HookFn, named_points
from cliplens.hooked.sizes import check_complete
from cliplens.hooked.structure import in_eval_mode
from cliplens.hooked.weight_views import WeightViews
from cliplens.shapes import TowerInputs

_BEFORE_BLOCKS = frozenset({"hook_embed", "hook_pos_embed", "hook_patch_embed"})
_TINY = 1e-12


class HookedTower(WeightViews):
    """An encoder with hooks.

    Weights are shared with the stock module, which is not altered. The tower always runs in eval mode; the stock module
    keeps its own mode.
    """

    _guard: Guard | None = None
    """The proof that the tower gives what its stock encoder gives; None if they are never compared."""
    still: Callable[[], None] | None = None
    """Refuses a joint model whose parts were exchanged since it was wrapped; None if nothing is compared."""

    def __init__(self, stock: nn.Module, cfg: TowerConfig) -> None:
        super().__init__()
        self.stock = stock
        self._cfg = cfg
        self.hook_embed, self.hook_pos_embed = hook_point(cfg.d_model), hook_point(cfg.d_model)
        self.hook_projected, self.hook_embedding = hook_point(cfg.d_embed), hook_point(cfg.d_embed)

    def __repr__(self) -> str:
        cfg = self.cfg
        shape = f"{cfg.n_layers} {self.stack_name}, {cfg.n_heads} heads, d_model {cfg.d_model}"
        size = "" if cfg.image_size is None else f", images {cfg.image_size[0]}x{cfg.image_size[1]}"
        more = "" if self.level == "heads" else f", hooked at its {self.level}"
        return f"{type(self).__name__}({cfg.model_name!r}: {shape}, {cfg.n_ctx} positions{size}{more})"

    @property
    def cfg(self) -> TowerConfig:
        """The configuration of the tower, with the current device and dtype of its weights."""
        return replace(self._cfg, device=self.device, dtype=self.input_dtype)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.stock.parameters()).device

    def belongs_to(self, model_name: str) -> None:
        """Set the name of the model of the tower."""
        self._cfg = replace(self._cfg, model_name=model_name)

    def setup(self) -> None:
        """Set the names of the hook points. Call it at the end of `__init__`. Stock modules are not altered.

        Raises:
            MismatchError: the blocks or `hook_pooled` are missing.
        """
        check_complete(self)
        self.hook_dict = named_points(self)
        for name, hook in self.hook_dict.items():
            hook.name = name
        own = ((name, m) for name, m in self.named_modules() if name and not name.startswith("stock"))
        self.mod_dict = dict(own)
        for module in self.mod_dict.values():
            if isinstance(module, HookedPart):
                module.refresh()
        named = ((name.rpartition(".")[2], m) for name, m in self.mod_dict.items())
        self._points = tuple(m for name, m in named if name.startswith("hook_"))
        for module in (self, *self.mod_dict.values()):
            module.training = False

    def train(self, mode: bool = True) -> "HookedTower":
        """Do nothing: a tower runs in eval mode. Set the mode of the stock model on the stock model."""
        return self

    def prove(self, *, built_by_name: bool = False) -> None:
        """Compare the tower with its stock encoder now, and again after every change of the encoder's structure.

        Args:
            built_by_name: the encoder's own library built it, so it is compared only if somebody changed it since.

        Raises:
            MismatchError: the outputs differ; the message names the first block and the reason.
        """
        self.__dict__["_guard"] = Guard(self, built_by_name=built_by_name)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the stock encoder into eval mode for the `with` block, then restore its mode."""
        with in_eval_mode(self.stock):
            yield

    def is_unhooked(self) -> bool:
        """Return whether the tower has no hooks and no spliced dictionaries."""
        return not active(*self._points)

    def forward(
        self,
        inputs: Inputs,
        stop_at_layer: int | None = None,
        *,
        return_type: str | None = None,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        loss_per_token: bool = False,
    ) -> Any:
        """Return the output of the stock encoder, or the stream that enters block `stop_at_layer`.

        Args:
            inputs: vision: preprocessed images, PIL images, or image tokens with an `image_source`; text: token ids or
                captions.
            stop_at_layer: run only the blocks before this one, as in TransformerLens. `n_layers` returns the stream
                before the final norm; negative numbers count from the end.
            return_type: "embedding" or None; with a bank of concepts also "logits", "loss" or "both" (see `answer`).
            prepend_bos: ignored; SAELens passes it. Token ids already contain the start token.
            padding_side: ignored; SAELens passes it.
            loss_per_token: return one loss per position.

        Raises:
            InputError: the inputs are of another kind or shape, or logits are requested without a bank.
        """
        if return_type not in (None, "embedding"):
            # Image tokens are not looked up here: the bank needs them to find the labels of the images.
            kept = inputs if isinstance(inputs, Tensor) else self._received(inputs)
            return self.answer(kept, return_type, loss_per_token)
        given = self._received(inputs)
        with self.evaluating():
            return self.compute(given, stop_at_layer)

    def compute(self, inputs: TowerInputs, stop_at_layer: int | None = None) -> Tensor:
        """Run the forward pass on checked inputs, in the current mode of the stock encoder."""
        if stop_at_layer is None:
            return self._encode(inputs)[0]
        if self._guard is not None:
            self._guard.check()
        stream, context = self.embed(inputs)
        return self.rows(self._through_blocks(stream, context, self._checked_stop(stop_at_layer)))

    @property
    def stack(self) -> nn.ModuleList:
        """The layers. Each is called with the stream and the context returned by `embed`."""
        return self.get_submodule(self.stack_name)

    def rows(self, stream: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch pos d_model"]:
        """Return the stream as [batch, pos, d], from the layout that the layers use."""
        return stream if stream.ndim == 3 else stream.flatten(2).transpose(1, 2)

    def encode(self, inputs: Inputs) -> tuple[Float[Tensor, "batch *pos d_embed"], Float[Tensor, "batch *pos d_embed"]]:
        """Return the unnormalised output, and the unit-norm embedding after `hook_embedding`."""
        given = self._received(inputs)
        with self.evaluating():
            projected, embedding = self._encode(given)
        return projected, F.normalize(projected, dim=-1) if embedding is None else embedding

    def read(
        self, inputs: Inputs, names: Sequence[str], stop_at_layer: int | None = None
    ) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """Return the activations at the named hooks, without computing anything after the last of them.

        It is faster than `run_with_cache`. Gradients are computed unless the caller switched them off.

        Raises:
            UnknownNameError: no hook has that name.
            InputError: a named hook lies after `stop_at_layer`.
        """
        self.check_names(names)
        stop = self.stop_after(names) if stop_at_layer is None else stop_at_layer
        got: dict[str, Tensor] = {}
        handles = [self.hook_dict[name].register_forward_hook(Recorder(got, name)) for name in names]
        try:
            self.forward(inputs, stop)
        finally:
            for handle in handles:
                handle.remove()
        if len(got) < len(set(names)):
            raise InputError(
                expected=f"a stop_at_layer past {', '.join(sorted(set(names) - set(got)))}",
                found=f"stop_at_layer={stop}",
                fix="leave stop_at_layer out; it is derived from the names",
            )
        return {name: got[name] for name in names}

    def stop_after(self, names: Sequence[str]) -> int | None:
        """Return the smallest `stop_at_layer` at which all the named hooks fire; None if the head must run."""
        stops = [0]
        for name in names:
            layer = re.match(rf"{self.stack_name}\.(\d+)\.", name)
            if layer is None and name not in _BEFORE_BLOCKS and not name.startswith("ln_pre."):
                return None
            stops.append(int(layer[1]) + 1 if layer else 0)
        return max(stops)

    def width(self, hook: str) -> int:
        """Return the width of one row of activations at the hook; heads are concatenated.

        Raises:
            UnknownNameError: no hook has that name.
            InputError: rows at this hook have no fixed width (attention scores and patterns).
        """
        self.check_names([hook])
        width = self.hook_dict[hook].width
        if width is None:
            raise InputError(
                expected="a hook whose rows have one width",
                found=f"{hook!r}, [batch, head, query, key]",
                fix="choose a hook of the residual stream, of heads (hook_z, hook_result) or of the MLP",
            )
        return width

    def hook_for(self, name: str, hook: HookFn) -> HookFn:
        """Return the hook unchanged: hook points of a tower carry the names they are found under."""
        return hook

    def cache_of(self, activations: dict[str, Tensor], has_batch_dim: bool) -> ClipActivationCache:
        """Return TransformerLens' cache."""
        return ClipActivationCache(activations, self, has_batch_dim)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Return the sum of the output biases of attention and MLP before `layer`, as in TransformerLens."""
        total = torch.zeros(self._cfg.d_model, device=self.device, dtype=self.input_dtype)
        block: Any
        for i, block in enumerate(self.stack):
            if (i < layer or (i == layer and mlp_input)) and block.attn.b_O is not None:
                total = total + block.attn.b_O
            if i < layer and include_mlp_biases and block.mlp.b_out is not None:
                total = total + block.mlp.b_out
        return total

    def _received(self, inputs: Inputs) -> Tensor:
        if self.still is not None:
            self.still()
        given = self.checked(inputs)
        self.mark_special(given)
        return given

    def _encode(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.is_unhooked():
            return self.run_stock(inputs), None
        if self._guard is not None:
            self._guard.check()
        return self._encode_hooked(inputs)

    def run_hooked(self, inputs: TowerInputs) -> Float[Tensor, "batch *pos d_embed"]:
        """Run the forward pass with hook points, even if no hook is active."""
        return self._encode_hooked(inputs)[0]

    def _encode_hooked(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        stream, context = self.embed(inputs)
        stream = self._through_blocks(stream, context, None)
        pooled = call_hook(self.hook_pooled, self.pool(stream, inputs))
        projected = call_hook(self.hook_projected, self.project(pooled))
        if not active(self.hook_embedding):
            return projected, None
        length = projected.norm(dim=-1, keepdim=True).clamp_min(_TINY)
        embedding = call_hook(self.hook_embedding, projected / length)
        return embedding * length, embedding

    def _through_blocks(self, stream: Tensor, context: Mapping[str, Any], stop: int | None) -> Tensor:
        for layer in islice(self.stack, stop):
            stream = layer(stream, context)
        return stream

    def _checked_stop(self, stop: int) -> int:
        n = self._cfg.n_layers
        if not -n <= stop <= n:
            raise InputError(
                expected=f"stop_at_layer between {-n} and {n}",
                found=str(stop),
                fix="count blocks from 0, or -1 from the end",
            )
        return stop if stop >= 0 else stop + n
