"""Real multimodal language models of transformers, tiny, random, made from configs: no download."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from support import tiny_pipelines as tiny

IMAGE = 63
Made = tuple[Any, dict[str, Tensor]]
"""A model and its inputs: one picture and a question."""


def llama() -> Any:
    """The config of a tiny language model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **_language(), num_key_value_heads=4, max_position_embeddings=256, bos_token_id=1, eos_token_id=2
    )


def _language() -> dict[str, Any]:
    return {
        "vocab_size": 70,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    }


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": tiny.WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }


def question(places: int, **more: Tensor) -> dict[str, Tensor]:
    """A question around the places of a picture."""
    ids = torch.tensor([[1, 5, *[IMAGE] * places, 7]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


def pixels(*shape: int) -> Tensor:
    """Random pixels."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def llava() -> Made:
    """LLaVA 1.5."""
    return tiny.llava(), tiny.llava_inputs()


def vip_llava() -> Made:
    """VipLLaVA, which reads several layers."""
    from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

    config = VipLlavaConfig(
        vision_config=tiny.vision_config(), text_config=llama(), image_token_index=IMAGE, vision_feature_layers=[-2, -3]
    )
    return VipLlavaForConditionalGeneration(config).eval(), question(16, pixel_values=pixels(1, 3, 32, 32))


def llava_next() -> Made:
    """LLaVA-NeXT, which cuts a picture into tiles."""
    model, given = tiny.llava_next(), {"pixel_values": pixels(1, 3, 3, 32, 32), "image_sizes": torch.tensor([[32, 64]])}
    for places in range(20, 90):  # how many places a picture takes depends on the version of transformers
        inputs = question(places, **given)
        try:
            with torch.no_grad():
                model(**inputs)
        except ValueError:
            continue
        return model, inputs
    raise RuntimeError("no number of places fits")


def smolvlm() -> Made:
    """SmolVLM."""
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMVisionConfig

    config = SmolVLMConfig(
        vision_config=SmolVLMVisionConfig(**_vision()), text_config=llama(), image_token_id=IMAGE, scale_factor=2
    )
    return SmolVLMForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 1, 3, 32, 32))


def idefics3() -> Made:
    """Idefics 3."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3VisionConfig

    config = Idefics3Config(
        vision_config=Idefics3VisionConfig(**_vision()), text_config=llama(), image_token_id=IMAGE, scale_factor=2
    )
    return Idefics3ForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 1, 3, 32, 32))


def idefics2() -> Made:
    """Idefics 2, whose perceiver stands between tower and language model."""
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration, MistralConfig

    perceiver = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
        "num_key_value_heads": 4,
    }
    config = Idefics2Config(
        vision_config=_vision(),
        text_config=MistralConfig(**_language(), num_key_value_heads=4),
        image_token_id=IMAGE,
        perceiver_config=perceiver,
    )
    return Idefics2ForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 1, 3, 32, 32))


def paligemma() -> Made:
    """PaliGemma over a SigLIP tower."""
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(**_vision(), vision_use_head=False)
    vision.projection_dim = 32
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=GemmaConfig(**_language(), num_key_value_heads=1, head_dim=8),
        image_token_index=IMAGE,
        projection_dim=32,
        hidden_size=32,
    )
    return PaliGemmaForConditionalGeneration(config).eval(), question(16, pixel_values=pixels(1, 3, 32, 32))


def blip2() -> Made:
    """BLIP-2 with OPT."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    qformer = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "encoder_hidden_size": tiny.WIDTH,
        "vocab_size": 70,
    }
    language = {
        "model_type": "opt",
        "vocab_size": 70,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    }
    config = Blip2Config(
        vision_config=_vision(),
        qformer_config=qformer,
        text_config=language,
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    return Blip2ForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 3, 32, 32))


def qwen2_vl() -> Made:
    """Qwen2-VL."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {
        "depth": 2,
        "embed_dim": tiny.WIDTH,
        "hidden_size": 32,
        "num_heads": 4,
        "mlp_ratio": 2,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 1,
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        vision_config=vision,
        text_config={**_language(), "num_key_value_heads": 4, "rope_parameters": rope},
        image_token_id=IMAGE,
        video_token_id=64,
        vision_start_token_id=61,
        vision_end_token_id=62,
    )
    return Qwen2VLForConditionalGeneration(config).eval(), tiny.qwen_inputs()


def qwen2_5_vl() -> Made:
    """Qwen2.5-VL."""
    return tiny.qwen_2_5_vl(), tiny.qwen_inputs()


MODELS: dict[str, tuple[Callable[[], Made], bool | None]] = {
    "LLaVA": (llava, False),
    "VipLLaVA": (vip_llava, False),
    "LLaVA-NeXT": (llava_next, False),
    "SmolVLM": (smolvlm, True),
    "Idefics 2": (idefics2, True),
    "Idefics 3": (idefics3, True),
    "PaliGemma": (paligemma, True),
    "BLIP-2": (blip2, True),
    "Qwen2-VL": (qwen2_vl, None),
    "Qwen2.5-VL": (qwen2_5_vl, None),
}
"""Name -> how it is made, and whether `vision.hook_pooled` has an effect; None where the tower has no such site."""
