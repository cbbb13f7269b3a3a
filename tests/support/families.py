"""Every configuration open_clip ships, built at reduced depth and width with random weights and no network."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import open_clip
import timm
import torch
import transformers
from open_clip.factory import get_model_config
from torch import Tensor, nn

from cliplens_hooks.models.open_clip import vision_family
from support.tiny import CLASSES, shaken

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
HF: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 1}
ROBERTA: dict[str, Any] = {
    **HF,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
}
M2M: dict[str, Any] = {
    **HF,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 20,
}
HF_CONFIGS = {
    "roberta": lambda: transformers.RobertaConfig(**ROBERTA),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**ROBERTA),
    "mt5": lambda: transformers.MT5Config(**HF, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2),
    "nllb": lambda: transformers.M2M100Config(**M2M),
}


def reduced_config(name: str) -> dict[str, Any]:
    """The configuration with two layers and a few dozen channels; everything that makes it its kind stays."""
    cfg = get_model_config(name)
    vision, text = dict(cfg["vision_cfg"]), dict(cfg["text_cfg"])
    if vision.get("timm_model_name"):
        vision |= {"timm_model_pretrained": False}
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
    else:
        vision |= {"layers": 2, "width": 32, "head_width": 16, "image_size": 2 * vision["patch_size"]}
    if "attn_pooler_heads" in vision:
        vision |= {"attn_pooler_heads": 2, "attn_pooler_queries": 4}
    if text.get("hf_model_name"):
        text |= {"hf_model_pretrained": False}
    else:
        text |= TEXT
    if "multimodal_cfg" in cfg:
        cfg["multimodal_cfg"] = {**cfg["multimodal_cfg"], **TEXT, "layers": 1}
    return {**cfg, "embed_dim": 32, "vision_cfg": vision, "text_cfg": text}


def kind_key(name: str) -> str:
    """Equal for configurations that are the same thing once reduced."""
    cfg = reduced_config(name)
    if cfg["vision_cfg"].get("timm_model_name"):
        cfg["vision_cfg"].pop("image_size", None)
    return json.dumps(cfg, sort_keys=True)


def reduced_timm(name: str) -> dict[str, Any]:
    """What timm's constructor takes to make the model small."""
    family = vision_family({"timm_model_name": name})[0]
    if family == "ConvNeXt":
        return {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}
    if family == "FastVit":
        n = 5 if name.endswith(("mci3", "mci4")) else 4
        return {"layers": (1,) * n, "embed_dims": (16, 16, 32, 32, 32)[:n]}
    if family == "SwinTransformer":
        return {"depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 2, 2), "img_size": 64, "window_size": 2}
    if name.startswith("vitamin") or "_mci_" in name:
        return {"depth": 1, "img_size": 64}
    return {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 2 * _patch(name)}


def _patch(name: str) -> int:
    return int(name.partition("patch")[2].partition("_")[0])


def image_side(name: str) -> int:
    """Height and width of the reduced model's images."""
    vision = reduced_config(name)["vision_cfg"]
    timm_name = vision.get("timm_model_name")
    return reduced_timm(timm_name).get("img_size", 64) if timm_name else vision["image_size"]


@contextmanager
def nothing_from_the_hub() -> Iterator[None]:
    """timm makes small models, and Hugging Face configurations come from the table above."""
    create = timm.create_model

    def small(name: str, **options: Any) -> nn.Module:
        return create(name, **{**options, **reduced_timm(name)})

    def config(name: str) -> Any:
        return next(make for kind, make in reversed(HF_CONFIGS.items()) if kind in name)()

    with (
        patch.object(open_clip.timm_model.timm, "create_model", small),
        patch.object(open_clip.hf_model.AutoConfig, "from_pretrained", config),
    ):
        yield


def reduced_model(name: str) -> nn.Module:
    """The model of a configuration, reduced."""
    cfg = reduced_config(name)
    custom = cfg.pop("custom_text", False) or "hf_model_name" in cfg["text_cfg"]
    kind = "clip" if not custom else "coca" if "multimodal_cfg" in cfg else "custom"
    if cfg["vision_cfg"].get("timm_model_name"):
        cfg["vision_cfg"]["image_size"] = image_side(name)
    torch.manual_seed(0)
    with nothing_from_the_hub():
        return shaken(CLASSES[kind](**cfg), weights=True)


def reduced_inputs(name: str, n: int = 2) -> tuple[Tensor, Tensor]:
    """Images and token ids a reduced model takes."""
    generator = torch.Generator().manual_seed(0)
    side = image_side(name)
    tokens = torch.randint(3, 64, (n, 8), generator=generator)
    tokens[0, 5:] = 1
    return torch.randn(n, 3, side, side, generator=generator), tokens
