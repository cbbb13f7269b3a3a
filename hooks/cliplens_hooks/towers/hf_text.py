"""Towers over open_clip's `HFTextEncoder` (RoBERTa, XLM-R, mT5, NLLB), with hooks at the ends of blocks.

`transformers` prepares the other arguments of the blocks (masks, position bias). A temporary hook on the first block
records them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from cliplens.contracts import Tower
from cliplens.errors import InputError
from cliplens.hooked import HookedLayer, HookedTextTower, HookedTower, TowerConfig, hook_point
from cliplens.shapes import Tokens
from cliplens.sites import Side

LAYERS = ("encoder.layer", "block", "layers", "encoder.layers")
FINAL_NORMS = ("final_layer_norm", "layer_norm")
NO_LIMIT = 512
"""Context length of encoders without a limit (T5's relative positions)."""


class HFTextTower(Tower):
    """Opens `open_clip.hf_model.HFTextEncoder`."""

    family: ClassVar[str] = "HFTextEncoder"

    def opens(self, model: nn.Module, side: Side) -> bool:
        """Return whether the text side is a Hugging Face encoder with a list of blocks."""
        stock = getattr(model, "text", None)
        return side == "text" and isinstance(stock, HFTextEncoder) and layers_of(stock.transformer) is not None

    def open(self, model: nn.Module, side: Side) -> HookedTower:
        """Return the tower with hooks at the ends of its blocks."""
        return HFText(model.text)


def layers_of(transformer: nn.Module) -> nn.ModuleList | None:
    """Return the blocks of a Hugging Face encoder."""
    for path in LAYERS:
        found: Any = transformer
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    return None


class _AtTheDoorError(Exception):
    """Carries the arguments of the first block, and stops the forward pass."""

    def __init__(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.given, self.named = given, named


def _stop_at_the_door(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    raise _AtTheDoorError(given, named)


class HFText(HookedTextTower):
    """A hooked `HFTextEncoder`."""

    level = "blocks"
    stock: HFTextEncoder
    transformer: Any

    def __init__(self, stock: HFTextEncoder) -> None:
        layers = layers_of(stock.transformer)
        assert layers is not None
        cfg = _config(stock, len(layers))
        super().__init__(stock, cfg)
        self.__dict__["transformer"] = stock.transformer
        self.any_length = True
        del self.hook_pos_embed
        self.blocks = nn.ModuleList(HookedLayer(_run(layer), cfg.d_model) for layer in layers)
        self.hook_pooled = hook_point(cfg.d_model)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the stream."""
        return next(self.stock.parameters()).dtype

    def token_embedding(self) -> Tensor:
        """Return the weight of the token embedding."""
        return self.transformer.get_input_embeddings().weight

    def run_stock(self, inputs: Tokens) -> Tensor:
        """Run the encoder."""
        out = self.stock(inputs)
        return out[0] if isinstance(out, tuple) else out

    def embed(self, inputs: Tokens) -> tuple[Tensor, Mapping[str, Any]]:
        """Return the stream that enters the first block, and its other arguments."""
        handle = layers_of(self.transformer)[0].register_forward_pre_hook(_stop_at_the_door, with_kwargs=True)  # type: ignore[index]
        try:
            self.transformer(input_ids=inputs, attention_mask=self._mask(inputs))
        except _AtTheDoorError as door:
            given, named = door.given, dict(door.named)
        finally:
            handle.remove()
        stream, *rest = given if given else (named.pop("hidden_states"),)
        return self.hook_embed(stream), {"given": rest, "named": named}

    def pool(self, stream: Float[Tensor, "batch pos d_model"], inputs: Tokens) -> Tensor:
        """Apply the final norm, if there is one, and open_clip's pooler."""
        for name in FINAL_NORMS:
            stream = getattr(self.transformer, name, nn.Identity())(stream)
        inner = getattr(self.transformer, "pooler", None)
        out = (
            BaseModelOutput(last_hidden_state=stream)
            if inner is None
            else BaseModelOutputWithPooling(last_hidden_state=stream, pooler_output=inner(stream))
        )
        return self.stock.pooler(out, self._mask(inputs))

    def project(self, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
        """Project into the joint embedding space."""
        return self.stock.proj(pooled)

    def special_position(self, inputs: Int[Tensor, "batch context"]) -> Int[Tensor, " batch"]:
        """Return position 0, if the encoder pools its first token.

        Raises:
            InputError: it pools all tokens.
        """
        if not isinstance(self.stock.pooler, ClsPooler | ClsLastHiddenStatePooler):
            raise InputError(
                expected="a text tower that reads one position",
                found=f"{type(self.stock.pooler).__name__} over all tokens",
                fix="pass token='mean', or read hook_pooled or hook_embedding",
            )
        return torch.zeros_like(inputs[:, 0])

    def _mask(self, inputs: Tensor) -> Tensor:
        return (inputs != self.stock.config.pad_token_id).long()


def _run(layer: nn.Module) -> Any:
    def run(x: Tensor, context: Mapping[str, Any]) -> Tensor:
        out = layer(x, *context["given"], **context["named"])
        if isinstance(out, Tensor):
            return out
        if "position_bias" in context["named"] and len(out) > 1:
            context["named"]["position_bias"] = out[1]
        elif len(context["given"]) > 1 and len(out) > 1:
            context["given"][1] = out[1]
        return out[0]

    return run


def _config(stock: HFTextEncoder, n_layers: int) -> TowerConfig:
    config: Any = stock.config
    linear = [m for m in stock.proj.modules() if isinstance(m, nn.Linear)]
    n_heads = config.num_attention_heads
    limit = getattr(config, "max_position_embeddings", None)
    return TowerConfig(
        model_name="",
        side="text",
        family=f"HFTextEncoder {config.model_type}",
        d_model=config.hidden_size,
        n_layers=n_layers,
        n_heads=n_heads,
        d_head=config.hidden_size // n_heads,
        d_mlp=getattr(config, "intermediate_size", None) or getattr(config, "d_ff", None) or config.encoder_ffn_dim,
        n_ctx=limit - 2 if limit else NO_LIMIT,
        d_embed=linear[-1].out_features if linear else config.hidden_size,
        d_vocab=config.vocab_size,
    )
