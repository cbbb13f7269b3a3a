"""Build open_clip models without weights from configurations of transformers' CLIP, SigLIP and SigLIP 2."""

from functools import partial
from typing import Any

import transformers
from open_clip.model import CLIP, CustomTextCLIP, _build_text_tower, _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cliplens.errors import MismatchError
from cliplens.shapes import Images, Tokens
from cliplens_hooks.models.hf_state import KINDS, TEXT_ONLY


class TextOnly(nn.Module):
    """A text encoder without an image encoder."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.text = text

    def encode_text(self, text: Tokens) -> Tensor:
        """Return text embeddings."""
        return self.text(text)


class VisionOnly(nn.Module):
    """An image encoder without a text encoder."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, image: Images) -> Tensor:
        """Return image embeddings."""
        return self.visual(image)


def _ratio(inner: int, width: int) -> float:
    """Return a ratio such that `int(width * ratio) == inner` in open_clip and timm; the half prevents rounding down."""
    return (inner + 0.5) / width


def activation(name: str) -> nn.Module:
    """Return the module of a transformers activation.

    Raises:
        MismatchError: transformers has no activation of that name.
    """
    if name == "quick_gelu":
        return QuickGELU()
    if name == "gelu":
        return nn.GELU()
    if name in ("gelu_pytorch_tanh", "gelu_new"):
        return nn.GELU(approximate="tanh")
    if name not in transformers.activations.ACT2FN:
        raise MismatchError(
            expected="the name of an activation of transformers",
            found=repr(name),
            fix="correct hidden_act in config.json",
        )
    return transformers.activations.ACT2FN[name]


def _text_cfg(text: Any, **more: Any) -> dict[str, Any]:
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": _ratio(text.intermediate_size, text.hidden_size),
        "norm_kwargs": {"eps": text.layer_norm_eps},
        **more,
    }


def _clip_text_cfg(text: Any, **more: Any) -> dict[str, Any]:
    if text.eos_token_id == 2:
        return _text_cfg(text, pool_type="argmax", **more)
    return _text_cfg(text, pool_type="eos", eos_id=text.eos_token_id, **more)


def _siglip_text_cfg(text: Any) -> dict[str, Any]:
    return _text_cfg(text, no_causal_mask=True, proj_bias=True, pool_type="last")


def _clip_vision_cfg(vision: Any) -> dict[str, Any]:
    return {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.hidden_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "layers": vision.num_hidden_layers,
        "mlp_ratio": _ratio(vision.intermediate_size, vision.hidden_size),
        "norm_kwargs": {"eps": vision.layer_norm_eps},
    }


def empty_model(stock: Any, kind: str) -> nn.Module:
    """Return an open_clip model, without weights, of the architecture of `stock`, a model of type `kind`."""
    config = stock.config
    if kind == "clip":
        made = CLIP(config.projection_dim, _clip_vision_cfg(config.vision_config), _clip_text_cfg(config.text_config))
        _activate(made.visual.transformer.resblocks, config.vision_config.hidden_act)
        _activate(made.transformer.resblocks, config.text_config.hidden_act)
        return made
    if kind in KINDS:
        return _siglip(config)
    if kind in TEXT_ONLY:
        return TextOnly(_text(stock, kind))
    if kind.startswith("siglip"):
        return VisionOnly(_siglip_vision(config, kind))
    visual = _build_vision_tower(config.projection_dim, _clip_vision_cfg(config))
    _activate(visual.transformer.resblocks, config.hidden_act)
    if not hasattr(stock, "visual_projection"):
        visual.proj = None
    return VisionOnly(visual)


def _text(stock: Any, kind: str) -> nn.Module:
    config = stock.config
    if kind.startswith("siglip"):
        text = _build_text_tower(_siglip_width(config), _siglip_text_cfg(config))
    else:
        projected = hasattr(stock, "text_projection")
        cfg = _clip_text_cfg(config, **({} if projected else {"proj_type": "none"}))
        text = _build_text_tower(config.projection_dim, cfg)
    _activate(text.transformer.resblocks, config.hidden_act)
    return text


def _activate(blocks: Any, name: str) -> None:
    for block in blocks:
        block.mlp.gelu = activation(name)


def _siglip_width(text: Any) -> int:
    return getattr(text, "projection_size", None) or text.hidden_size


def _siglip(config: Any) -> nn.Module:
    vision, text = config.vision_config, config.text_config
    placeholder = {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8}
    made = CustomTextCLIP(_siglip_width(text), placeholder, _siglip_text_cfg(text), init_logit_bias=0.0)
    _activate(made.text.transformer.resblocks, text.hidden_act)
    made.visual = _siglip_vision(vision, config.model_type)
    return made


def _siglip_vision(vision: Any, kind: str) -> TimmModel:
    flexible = kind.startswith("siglip2")
    size = int(vision.num_patches**0.5) * vision.patch_size if flexible else vision.image_size
    visual = TimmModel.__new__(TimmModel)
    nn.Module.__init__(visual)
    visual.image_size = (size, size)
    visual.trunk = VisionTransformer(
        img_size=size,
        patch_size=vision.patch_size,
        embed_dim=vision.hidden_size,
        depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_ratio=_ratio(vision.intermediate_size, vision.hidden_size),
        num_classes=0,
        global_pool="map",
        class_token=False,
        norm_layer=partial(LayerNorm, eps=vision.layer_norm_eps),
        act_layer=partial(activation, vision.hidden_act),
    )
    visual.head = nn.Sequential()
    return visual
