"""Real multimodal language models of transformers, tiny, random, made from configs: no download."""

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
        "num_hidden_layers": tiny.LAYERS,
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
    model = tiny.llava_next()
    return model, _fitting(model, {"pixel_values": pixels(1, 3, 3, 32, 32), "image_sizes": torch.tensor([[32, 64]])})


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


def _qformer() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "encoder_hidden_size": tiny.WIDTH,
        "vocab_size": 70,
    }


def _opt() -> dict[str, Any]:
    return {
        "model_type": "opt",
        "vocab_size": 70,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    }


def blip2() -> Made:
    """BLIP-2 with OPT."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = Blip2Config(
        vision_config=_vision(),
        qformer_config=_qformer(),
        text_config=_opt(),
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    return Blip2ForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 3, 32, 32))


def qwen2_vl() -> Made:
    """Qwen2-VL."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {
        "depth": tiny.LAYERS,
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


def onevision() -> Made:
    """LLaVA-OneVision over a SigLIP tower, whose last layer it reads before the norm."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_vision(), vision_use_head=False),
        text_config=Qwen2Config(**_language(), num_key_value_heads=4),
        image_token_index=IMAGE,
        video_token_index=62,
        image_grid_pinpoints=[[32, 32], [32, 64]],
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    return model, _fitting(model, {"pixel_values": pixels(1, 3, 3, 32, 32), "image_sizes": torch.tensor([[32, 64]])})


def _fitting(model: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a question with as many places as the pictures take, which depends on the version of transformers."""
    for places in range(20, 90):
        inputs = question(places, **given)
        try:
            with torch.no_grad():
                model(**inputs)
        except ValueError:
            continue
        return inputs
    raise RuntimeError("no number of places fits")


def gemma3() -> Made:
    """Gemma 3 over a SigLIP tower."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

    text = Gemma3TextConfig(**_language(), num_key_value_heads=1, head_dim=8, max_position_embeddings=256)
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**_vision(), vision_use_head=False),
        text_config=text,
        image_token_index=IMAGE,
        boi_token_index=61,
        eoi_token_index=62,
        mm_tokens_per_image=4,
    )
    inputs = question(4, pixel_values=pixels(1, 3, 32, 32))
    model = Gemma3ForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # transformers starts it at 0
    return model, {**inputs, "token_type_ids": (inputs["input_ids"] == IMAGE).int()}


def instruct_blip() -> Made:
    """InstructBLIP, whose Q-Former reads the question too."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    config = InstructBlipConfig(
        vision_config=_vision(),
        qformer_config=_qformer(),
        text_config=_opt(),
        num_query_tokens=4,
        image_token_index=IMAGE,
    )
    asked = torch.tensor([[3, 4, 5]])
    inputs = question(
        4, pixel_values=pixels(1, 3, 32, 32), qformer_input_ids=asked, qformer_attention_mask=torch.ones_like(asked)
    )
    return InstructBlipForConditionalGeneration(config).eval(), inputs


def qwen3_vl() -> Made:
    """Qwen3-VL, which also reads layers inside its tower."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {
        "depth": tiny.LAYERS,
        "hidden_size": tiny.WIDTH,
        "intermediate_size": 64,
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 1,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen3VLConfig(
        vision_config=vision,
        text_config={**_language(), "num_key_value_heads": 4, "head_dim": 8, "rope_parameters": rope},
        image_token_id=IMAGE,
        video_token_id=64,
        vision_start_token_id=61,
        vision_end_token_id=62,
    )
    return Qwen3VLForConditionalGeneration(config).eval(), tiny.qwen_inputs()


def aya_vision() -> Made:
    """Aya Vision over a SigLIP tower."""
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, Cohere2Config, SiglipVisionConfig

    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(**_vision(), vision_use_head=False),
        text_config=Cohere2Config(**_language(), num_key_value_heads=4, head_dim=8),
        image_token_index=IMAGE,
        downsample_factor=2,
        adapter_layer_norm_eps=1e-6,
    )
    return AyaVisionForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 3, 32, 32))


def internvl() -> Made:
    """InternVL, whose own tower is not of CLIP's layout."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig

    vision = InternVLVisionConfig(
        hidden_size=tiny.WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=[32, 32],
        patch_size=[8, 8],
    )
    config = InternVLConfig(vision_config=vision, text_config=llama(), image_token_id=IMAGE)
    return InternVLForConditionalGeneration(config).eval(), question(4, pixel_values=pixels(1, 3, 32, 32))


def mllama() -> Made:
    """Llama 3.2 Vision, whose tower keeps its layers under other names."""
    from transformers import MllamaConfig, MllamaForConditionalGeneration
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

    vision = MllamaVisionConfig(
        hidden_size=tiny.WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=4,
        image_size=32,
        patch_size=8,
        max_num_tiles=1,
        supported_aspect_ratios=[[1, 1]],
        intermediate_layers_indices=[0],
        vision_output_dim=2 * tiny.WIDTH,
    )
    text = MllamaTextConfig(
        **{**_language(), "num_hidden_layers": 2},
        num_key_value_heads=4,
        cross_attention_layers=[1],
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = MllamaForConditionalGeneration(MllamaConfig(vision_config=vision, text_config=text)).eval()
    ids = torch.tensor([[1, 5, 7]])
    return model, {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels(1, 1, 1, 3, 32, 32),
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.ones(1, 1, 1, dtype=torch.int64),
        "cross_attention_mask": torch.ones(1, 3, 1, 1, dtype=torch.int64),
    }
