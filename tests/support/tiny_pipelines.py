"""Real diffusers pipelines and multimodal models of transformers, tiny, random, made from configs: no download."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

WIDTH = 32
WIDTH_2 = 48
EMBED = 24
LAYERS = 3
CONTEXT = 16


def tiny_tokenizer() -> Any:
    """CLIP's tokenizer over single letters."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [" "]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocab = {word: n for n, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT)


def text_config(tokenizer: Any, width: int = WIDTH) -> Any:
    """A text encoder's config; `projection_dim` is used by the classes that project."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        projection_dim=EMBED,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def vision_config(width: int = WIDTH) -> Any:
    """An image encoder's config."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=EMBED,
    )


def tiny_unet(cross: int = WIDTH, **more: Any) -> Any:
    """A denoiser of two levels."""
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": cross,
    }
    return UNet2DConditionModel(**{**config, **more}).eval()


def tiny_vae() -> Any:
    """An autoencoder of two levels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    ).eval()


def scheduler() -> Any:
    """DDIM as Stable Diffusion configures it."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(steps_offset=1, clip_sample=False, set_alpha_to_one=False)


def tiny_image(seed: int = 0, size: int = 32) -> Image.Image:
    """A random picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def feature_extractor() -> Any:
    """CLIP's picture preprocessing at the tiny size."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def image_encoder() -> Any:
    """A random image encoder with projection."""
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(vision_config()).eval()


def stable_diffusion(kind: str = "StableDiffusionPipeline", seed: int = 0, **unet: Any) -> Any:
    """A Stable Diffusion 1.x pipeline (or another class with the same parts); `unet` changes its denoiser."""
    import diffusers
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    pipeline = getattr(diffusers, kind)(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet(**unet),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=feature_extractor(),
        **({} if kind.endswith("Pix2PixPipeline") else {"image_encoder": None}),
        requires_safety_checker=False,
    )
    return quiet(pipeline)


def stable_diffusion_xl(seed: int = 0) -> Any:
    """A Stable Diffusion XL pipeline with its two text encoders."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    unet = tiny_unet(
        WIDTH + WIDTH_2,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + EMBED,
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, WIDTH_2)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tiny_tokenizer(),
        unet=unet,
        scheduler=scheduler(),
        add_watermarker=False,
    )
    return quiet(pipeline)


def _unclip_parts(seed: int) -> dict[str, Any]:
    import diffusers
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    return {
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=EMBED),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(text_config(tokenizer)).eval(),
        "unet": tiny_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * EMBED),
        "scheduler": scheduler(),
        "vae": tiny_vae(),
    }


def stable_unclip(seed: int = 0) -> Any:
    """StableUnCLIPPipeline: a prior turns the prompt into an image embedding."""
    import diffusers
    from transformers import CLIPTextModelWithProjection

    parts = _unclip_parts(seed)
    prior = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=EMBED, num_layers=1, num_embeddings=CONTEXT
    )
    torch.nn.init.ones_(prior.clip_std)  # it starts at 0, which would leave nothing of the prompt
    tokenizer = tiny_tokenizer()
    prior_text = CLIPTextModelWithProjection(text_config(tokenizer, EMBED)).eval()
    pipeline = diffusers.StableUnCLIPPipeline(
        prior_tokenizer=tokenizer,
        prior_text_encoder=prior_text,
        prior=prior.eval(),
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample_range=5.0
        ),
        **parts,
    )
    return quiet(pipeline)


def stable_unclip_img2img(seed: int = 0) -> Any:
    """StableUnCLIPImg2ImgPipeline: the image embedding comes from a picture."""
    import diffusers

    pipeline = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=feature_extractor(), image_encoder=image_encoder(), **_unclip_parts(seed)
    )
    return quiet(pipeline)


def ip_adapter(seed: int = 0) -> Any:
    """Stable Diffusion with a random IP-Adapter on it and an image encoder for it."""
    pipeline = stable_diffusion(seed=seed)
    torch.manual_seed(seed)
    pipeline.register_modules(image_encoder=image_encoder())
    pipeline.unet._load_ip_adapter_weights([ip_adapter_weights(pipeline.unet)])
    return pipeline


def ip_adapter_weights(unet: Any) -> dict[str, dict[str, Tensor]]:
    """Weights in the form IP-Adapter checkpoints have, for every cross-attention of the denoiser."""
    import diffusers

    cross, tokens = unet.config.cross_attention_dim, 4  # an IP-Adapter always has four
    attention: dict[str, Tensor] = {}
    for n, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            block = unet.get_submodule(name.removesuffix(".processor"))
            for which in ("k", "v"):
                attention[f"{n}.to_{which}_ip.weight"] = torch.randn(block.inner_dim, cross)
    projection = diffusers.models.embeddings.ImageProjection(
        cross_attention_dim=cross, image_embed_dim=EMBED, num_image_text_embeds=tokens
    ).state_dict()
    renamed = {key.replace("image_embeds.", "proj."): value for key, value in projection.items()}
    return {"image_proj": renamed, "ip_adapter": attention}


def llava(seed: int = 0) -> Any:
    """LlavaForConditionalGeneration over a tiny CLIP tower and a tiny Llama."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    config = LlavaConfig(vision_config=vision_config(), text_config=_language_config(), image_token_index=63)
    return LlavaForConditionalGeneration(config).eval()


def _language_config() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def llava_inputs(n: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Pictures and a question with a place for each patch."""
    patches = (32 // 8) ** 2
    words = torch.tensor([[1, 5, 6]]).repeat(n, 1)
    ids = torch.cat([words, torch.full((n, patches), 63), words + 7], dim=1)
    pixels = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


def stable_diffusion_3(seed: int = 0) -> Any:
    """Stable Diffusion 3 saved without T5."""
    import diffusers
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=WIDTH + WIDTH_2,
        pooled_projection_dim=2 * EMBED,
        out_channels=4,
    )
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_flow_vae(),
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, WIDTH_2)).eval(),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return quiet(pipeline)


def flux(seed: int = 0) -> Any:
    """Flux with a tiny T5, which is left alone."""
    import diffusers
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    t5 = T5Config(vocab_size=len(tokenizer), d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_flow_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer,
        transformer=transformer.eval(),
    )
    return quiet(pipeline)


def _flow_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        shift_factor=0.06,
        scaling_factor=1.5,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def image_variation(seed: int = 0) -> Any:
    """StableDiffusionImageVariationPipeline: only a picture conditions."""
    import diffusers

    torch.manual_seed(seed)
    pipeline = diffusers.StableDiffusionImageVariationPipeline(
        vae=tiny_vae(),
        image_encoder=image_encoder(),
        unet=tiny_unet(EMBED),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=feature_extractor(),
        requires_safety_checker=False,
    )
    return quiet(pipeline)


def llava_next(seed: int = 0) -> Any:
    """LLaVA-NeXT, which cuts a picture into tiles."""
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    torch.manual_seed(seed)
    config = LlavaNextConfig(
        vision_config=vision_config(),
        text_config=_language_config(),
        image_token_index=63,
        image_grid_pinpoints=[[32, 32], [32, 64]],
    )
    return LlavaNextForConditionalGeneration(config).eval()


def qwen_2_5_vl(seed: int = 0) -> Any:
    """Qwen2.5-VL, whose tower keeps its layers in `blocks` and packs all pictures into one sequence."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    vision = {
        "depth": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 1,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    text = {
        "vocab_size": 70,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
    }
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=63,
        video_token_id=64,
        vision_start_token_id=61,
        vision_end_token_id=62,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen_inputs(seed: int = 0) -> dict[str, Tensor]:
    """One picture of 4 x 4 patches, which become 4 tokens, and a question."""
    ids = torch.tensor([[1, 5, 61, *[63] * 4, 62, 7]])
    pixels = torch.randn(16, 3 * 8 * 8, generator=torch.Generator().manual_seed(seed))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (ids == 63).int(),
    }


def quiet(pipeline: Any) -> Any:
    """Without a progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline: Any, *args: Any, seed: int = 0, steps: int = 2, **kwargs: Any) -> np.ndarray:
    """The pipeline's picture as an array, from a fixed seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made = pipeline(*args, num_inference_steps=steps, generator=generator, output_type="np", **kwargs).images
    return np.asarray(made)
