"""The weights of transformers' CLIP, SigLIP and SigLIP 2 in open_clip's form: both towers, or one of them.

transformers keeps q, k and v apart where open_clip packs them, so its tensors cannot be shared: they are copied, with
LoRA and other adapters merged into the copies. The object that was given is left as it was.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import transformers
from open_clip.model import CLIP, CustomTextCLIP, _build_text_tower, _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cliplens.errors import MismatchError
from cliplens.hooked import is_adapted

State = dict[str, Tensor]
KINDS = ("clip", "siglip", "siglip2")
TEXT_ONLY = ("clip_text_model", "siglip_text_model", "siglip2_text_model")
VISION_ONLY = ("clip_vision_model", "siglip_vision_model", "siglip2_vision_model")
SUPPORTED = (*KINDS, *TEXT_ONLY, *VISION_ONLY)
"""Values of `config.model_type` that can be converted."""


class TextOnly(nn.Module):
    """A text encoder without an image encoder."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.text = text

    def encode_text(self, text: Tensor) -> Tensor:
        """Return text embeddings."""
        return self.text(text)


class VisionOnly(nn.Module):
    """An image encoder without a text encoder."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, image: Tensor) -> Tensor:
        """Return image embeddings."""
        return self.visual(image)


def to_open_clip(model: nn.Module) -> nn.Module:
    """Return an open_clip model with the weights of a transformers CLIP or SigLIP, or of one encoder of them.

    Raises:
        MismatchError: the configuration says something open_clip has no word for, or the weights are quantised.
    """
    stock: Any = model
    kind = stock.config.model_type
    state = _effective_state(stock)
    with torch.device("meta"):
        made = _made(stock, kind)
    made = made.to_empty(device="cpu")
    _fill_buffers(made)
    try:
        made.load_state_dict(_converted(state, stock, kind))
    except (RuntimeError, KeyError) as error:
        raise MismatchError(
            expected=f"the layout of transformers' {type(stock).__name__}",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix="merge adapters and undo changes of the layers first, or report the model's name to cliplens",
        ) from error
    weights = [p for p in stock.parameters() if p.is_floating_point()]
    return made.to(device=weights[0].device, dtype=weights[0].dtype).eval()


def _effective_state(stock: nn.Module) -> State:
    """Return the weights the model computes with: adapters merged and parametrisations applied, in copies."""
    if any(p.is_meta for p in stock.parameters()):
        raise MismatchError(
            expected="a model whose weights are in memory",
            found="weights on the meta device, as sequential offloading leaves them",
            fix="load the model without offloading",
        )
    if any(is_adapted(module) for module in stock.modules()):
        stock = copy.deepcopy(stock)
        for module in stock.modules():
            if is_adapted(module) and not (module.disable_adapters or module.merged):
                module.merge()  # type: ignore[operator]
    state: State = {}
    for name, value in stock.state_dict().items():
        plain = _plain_name(name, stock)
        if plain is not None and isinstance(value, Tensor):
            state[plain] = value.detach().clone()
    for name, module in stock.named_modules():
        if parametrize.is_parametrized(module):
            for tensor in module.parametrizations:
                state[f"{name}.{tensor}"] = getattr(module, tensor).detach().clone()
    for name, value in state.items():
        if not value.is_floating_point() and name.endswith("weight"):
            raise MismatchError(
                expected="floating-point weights",
                found=f"{name!r} of dtype {str(value.dtype).removeprefix('torch.')}, a quantised model",
                fix="load it without quantisation",
            )
    return state


def _plain_name(name: str, stock: Any) -> str | None:
    """Return a weight's name without what peft puts into it; None for weights of adapters."""
    if ".original_module." in name or any(f".{mark}" in name for mark in ("lora_", "parametrizations.", "ranknum")):
        return None
    for adapter in getattr(stock, "peft_config", {"default": None}):
        name = name.replace(f".modules_to_save.{adapter}.", ".")
    return name.replace(".base_layer.", ".")


def _fill_buffers(made: nn.Module) -> None:
    for module in made.modules():
        mask = getattr(module, "attn_mask", None)
        if isinstance(mask, Tensor):
            mask.copy_(torch.full_like(mask, float("-inf")).triu(1))


def _ratio(inner: int, width: int) -> float:
    """For int(width * ratio), as open_clip and timm compute: the half keeps rounding from losing one."""
    return (inner + 0.5) / width


def activation(name: str) -> nn.Module:
    """Return the module of a transformers activation.

    Raises:
        MismatchError: transformers has none of that name.
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


def _made(stock: Any, kind: str) -> nn.Module:
    """Return the empty open_clip model."""
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


_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "self_attn.out_proj": "attn.proj",
}


def _converted(state: State, stock: Any, kind: str) -> State:
    config = stock.config
    if kind in KINDS:
        return (clip_state if kind == "clip" else siglip_state)(state, config)
    one = {_with_encoder(name, kind): value for name, value in state.items()}
    n = config.num_hidden_layers
    if kind in TEXT_ONLY:
        projection = _pair(one, "text_model.head", "text.text_projection") if kind.startswith("siglip") else {}
        if "text_projection.weight" in one:
            projection = {"text.text_projection": one["text_projection.weight"].T}
        return {**_text_state(one, n, "text."), **projection}
    if kind.startswith("siglip"):
        return _siglip_vision_state(one, config)
    projection = {"visual.proj": one["visual_projection.weight"].T} if "visual_projection.weight" in one else {}
    return {**_clip_vision_state(one, n), **projection}


def _with_encoder(name: str, kind: str) -> str:
    """Return a weight's name as the joint model has it: some single encoders leave out `text_model.`"""
    encoder = "text_model." if kind in TEXT_ONLY else "vision_model."
    return name if name.startswith((encoder, "text_projection", "visual_projection")) else encoder + name


def _blocks(state: State, source: str, target: str, n: int, names: Mapping[str, str], packed: str) -> State:
    out: State = {}
    for i in range(n):
        for end in ("weight", "bias"):
            at = f"{source}.encoder.layers.{i}"
            qkv = [state[f"{at}.self_attn.{p}_proj.{end}"] for p in "qkv"]
            out[f"{target}.{i}.{packed}{end}"] = torch.cat(qkv)
            out |= {f"{target}.{i}.{ours}.{end}": state[f"{at}.{theirs}.{end}"] for theirs, ours in names.items()}
    return out


def _pair(state: State, source: str, target: str) -> State:
    return {f"{target}.{end}": state[f"{source}.{end}"] for end in ("weight", "bias")}


def _text_state(state: State, n: int, prefix: str) -> State:
    return {
        f"{prefix}token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        f"{prefix}positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        **_pair(state, "text_model.final_layer_norm", f"{prefix}ln_final"),
        **_blocks(state, "text_model", f"{prefix}transformer.resblocks", n, _BLOCK, "attn.in_proj_"),
    }


def _clip_vision_state(state: State, n: int) -> State:
    vision = "vision_model.embeddings."
    return {
        "visual.class_embedding": state[f"{vision}class_embedding"],
        "visual.positional_embedding": state[f"{vision}position_embedding.weight"],
        "visual.conv1.weight": state[f"{vision}patch_embedding.weight"],
        **_pair(state, "vision_model.pre_layrnorm", "visual.ln_pre"),
        **_pair(state, "vision_model.post_layernorm", "visual.ln_post"),
        **_blocks(state, "vision_model", "visual.transformer.resblocks", n, _BLOCK, "attn.in_proj_"),
    }


def clip_state(state: State, config: Any) -> State:
    """Return transformers' `CLIPModel` state dict as that of open_clip's `CLIP`."""
    return {
        "logit_scale": state["logit_scale"],
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
        **_clip_vision_state(state, config.vision_config.num_hidden_layers),
        **_text_state(state, config.text_config.num_hidden_layers, ""),
    }


def siglip_state(state: State, config: Any) -> State:
    """Return the state dict of a `SiglipModel` or `Siglip2Model` as that of open_clip's `CustomTextCLIP` over timm."""
    return {
        "logit_scale": state["logit_scale"].reshape(()),
        "logit_bias": state["logit_bias"].reshape(()),
        **_siglip_vision_state(state, config.vision_config),
        **_pair(state, "text_model.head", "text.text_projection"),
        **_text_state(state, config.text_config.num_hidden_layers, "text."),
    }


def _siglip_vision_state(state: State, vision: Any) -> State:
    trunk, n = "visual.trunk", vision.num_hidden_layers
    head = "vision_model.head"
    query, key_value = {}, {}
    for end in ("weight", "bias"):
        packed = state[f"{head}.attention.in_proj_{end}"]
        d = len(packed) // 3
        query[f"{trunk}.attn_pool.q.{end}"], key_value[f"{trunk}.attn_pool.kv.{end}"] = packed[:d], packed[d:]
    return {
        f"{trunk}.pos_embed": state["vision_model.embeddings.position_embedding.weight"].unsqueeze(0),
        f"{trunk}.patch_embed.proj.weight": _patches(state["vision_model.embeddings.patch_embedding.weight"], vision),
        f"{trunk}.patch_embed.proj.bias": state["vision_model.embeddings.patch_embedding.bias"],
        f"{trunk}.attn_pool.latent": state[f"{head}.probe"],
        **query,
        **key_value,
        **_pair(state, f"{head}.attention.out_proj", f"{trunk}.attn_pool.proj"),
        **_pair(state, f"{head}.layernorm", f"{trunk}.attn_pool.norm"),
        **_pair(state, f"{head}.mlp.fc1", f"{trunk}.attn_pool.mlp.fc1"),
        **_pair(state, f"{head}.mlp.fc2", f"{trunk}.attn_pool.mlp.fc2"),
        **_pair(state, "vision_model.post_layernorm", f"{trunk}.norm"),
        **_blocks(state, "vision_model", f"{trunk}.blocks", n, _TIMM_BLOCK, "attn.qkv."),
    }


def _patches(weight: Tensor, vision: Any) -> Tensor:
    """SigLIP 2 embeds patches that were flattened as [height, width, channel]; a convolution wants channels first."""
    if weight.ndim == 4:
        return weight
    p = vision.patch_size
    return weight.view(len(weight), p, p, -1).permute(0, 3, 1, 2).contiguous()
