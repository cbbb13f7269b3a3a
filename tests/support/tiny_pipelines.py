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


def stable_diffusion(kind: str = "StableDiffusionPipeline", seed: int = 0) -> Any:
    """A Stable Diffusion 1.x pipeline (or another class with the same parts)."""
    import diffusers
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    pipeline = getattr(diffusers, kind)(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=feature_extractor(),
        image_encoder=None,
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
    pipeline.unet._load_ip_adapter_weights([_ip_adapter_weights(pipeline.unet)])
    return pipeline


def _ip_adapter_weights(unet: Any) -> dict[str, dict[str, Tensor]]:
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
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    language = LlamaConfig(
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
    config = LlavaConfig(vision_config=vision_config(), text_config=language, image_token_index=63)
    return LlavaForConditionalGeneration(config).eval()


def llava_inputs(n: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Pictures and a question with a place for each patch."""
    patches = (32 // 8) ** 2
    words = torch.tensor([[1, 5, 6]]).repeat(n, 1)
    ids = torch.cat([words, torch.full((n, patches), 63), words + 7], dim=1)
    pixels = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}


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
