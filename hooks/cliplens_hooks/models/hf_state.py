"""State dicts of transformers' CLIP, SigLIP and SigLIP 2 under open_clip's and timm's names."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
KINDS = ("clip", "siglip", "siglip2")
TEXT_ONLY = ("clip_text_model", "siglip_text_model", "siglip2_text_model")
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


def convert_state(state: State, stock: Any, kind: str) -> State:
    """Return the weights of a model, or of one encoder, of type `kind` under the names of its open_clip model."""
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
    """Return the name of a weight in the joint model. Some single encoders omit `text_model.`"""
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
    """Return the weight of a patch convolution. SigLIP 2 flattens patches as [height, width, channel]."""
    if weight.ndim == 4:
        return weight
    p = vision.patch_size
    return weight.view(len(weight), p, p, -1).permute(0, 3, 1, 2).contiguous()
