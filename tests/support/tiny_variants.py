"""Real diffusers pipelines beyond the usual ones, tiny and random: ControlNet, LCM, unCLIP, Kandinsky. No download."""

from pathlib import Path
from typing import Any

import torch

from support import tiny_pipelines as tiny


def control_net(seed: int = 0) -> Any:
    """Stable Diffusion with a ControlNet."""
    import diffusers

    made = tiny.stable_diffusion(seed=seed)
    net = diffusers.ControlNetModel.from_unet(made.unet, conditioning_embedding_out_channels=(8, 8)).eval()
    parts = {name: part for name, part in made.components.items() if name != "image_encoder"}
    return tiny.quiet(
        diffusers.StableDiffusionControlNetPipeline(**parts, controlnet=net, requires_safety_checker=False)
    )


def latent_consistency(seed: int = 0) -> Any:
    """A latent consistency model, which draws in few steps without a negative prompt."""
    import diffusers

    made = tiny.stable_diffusion(seed=seed, time_cond_proj_dim=8)
    parts = {**made.components, "scheduler": diffusers.LCMScheduler()}
    return tiny.quiet(diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False))


def xl(kind: str, seed: int = 0) -> Any:
    """Another class with the parts of Stable Diffusion XL."""
    import diffusers

    made = tiny.stable_diffusion_xl(seed)
    return tiny.quiet(getattr(diffusers, kind)(**made.components, add_watermarker=False))


def flux(kind: str, seed: int = 0) -> Any:
    """Another class with the parts of Flux."""
    import diffusers

    return tiny.quiet(getattr(diffusers, kind)(**tiny.flux(seed).components))


def _prior() -> Any:
    import diffusers

    prior = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        embedding_dim=tiny.EMBED,
        num_layers=1,
        num_embeddings=tiny.CONTEXT,
        clip_embed_dim=tiny.EMBED,
    ).eval()
    torch.nn.init.ones_(prior.clip_std)  # it starts at 0, which would leave nothing of the prompt
    return prior


def _prior_scheduler() -> Any:
    import diffusers

    return diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample_range=5.0
    )


def _projecting(width: int = tiny.EMBED) -> Any:
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(tiny.text_config(tiny.tiny_tokenizer(), width)).eval()


def kandinsky_prior(seed: int = 0) -> Any:
    """Kandinsky 2.2's first pipeline, which turns a prompt into an image embedding."""
    import diffusers

    torch.manual_seed(seed)
    pipeline = diffusers.KandinskyV22PriorPipeline(
        prior=_prior(),
        image_encoder=tiny.image_encoder(),
        text_encoder=_projecting(),
        tokenizer=tiny.tiny_tokenizer(),
        scheduler=_prior_scheduler(),
        image_processor=tiny.feature_extractor(),
    )
    return tiny.quiet(pipeline)


def _kandinsky_decoder_parts() -> dict[str, Any]:
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        encoder_hid_dim=tiny.EMBED,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=32,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    ).eval()
    movq = diffusers.VQModel(
        block_out_channels=[32, 32],  # its spatial norms have 32 groups
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    ).eval()
    return {"unet": unet, "movq": movq, "scheduler": diffusers.DDIMScheduler(clip_sample=False)}


def kandinsky_decoder(seed: int = 0) -> Any:
    """Kandinsky 2.2's second pipeline, which draws an image embedding and has no encoder."""
    import diffusers

    torch.manual_seed(seed)
    return tiny.quiet(diffusers.KandinskyV22Pipeline(**_kandinsky_decoder_parts()))


def kandinsky(seed: int = 0) -> Any:
    """Kandinsky 2.2, both pipelines in one."""
    import diffusers

    prior = kandinsky_prior(seed)
    named = {"image_processor": "prior_image_processor", "scheduler": "prior_scheduler"}
    parts = {named.get(name, f"prior_{name}"): part for name, part in prior.components.items()}
    return tiny.quiet(diffusers.KandinskyV22CombinedPipeline(**parts, **_kandinsky_decoder_parts()))


def _unclip_decoder_parts() -> dict[str, Any]:
    import diffusers
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    decoder = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    ).eval()
    resolution = {
        "sample_size": 32,
        "layers_per_block": 1,
        "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "in_channels": 6,
        "out_channels": 3,
    }
    upscaling = {"variance_type": "fixed_small_log", "prediction_type": "epsilon", "num_train_timesteps": 1000}
    return {
        "decoder": decoder,
        "text_proj": UnCLIPTextProjModel(
            clip_embeddings_dim=tiny.EMBED, time_embed_dim=4 * 8, cross_attention_dim=32, clip_extra_context_tokens=2
        ).eval(),
        "super_res_first": diffusers.UNet2DModel(**resolution).eval(),
        "super_res_last": diffusers.UNet2DModel(**resolution).eval(),
        "decoder_scheduler": diffusers.UnCLIPScheduler(
            variance_type="learned_range", prediction_type="epsilon", num_train_timesteps=1000
        ),
        "super_res_scheduler": diffusers.UnCLIPScheduler(**upscaling),
    }


def unclip(seed: int = 0) -> Any:
    """UnCLIPPipeline (Karlo): a prior, a decoder and two networks that enlarge."""
    import diffusers

    torch.manual_seed(seed)
    pipeline = diffusers.UnCLIPPipeline(
        prior=_prior(),
        text_encoder=_projecting(),
        tokenizer=tiny.tiny_tokenizer(),
        prior_scheduler=_prior_scheduler(),
        **_unclip_decoder_parts(),
    )
    return tiny.quiet(pipeline)


def unclip_variation(seed: int = 0) -> Any:
    """UnCLIPImageVariationPipeline: a picture is what conditions."""
    import diffusers

    torch.manual_seed(seed)
    pipeline = diffusers.UnCLIPImageVariationPipeline(
        text_encoder=_projecting(),
        tokenizer=tiny.tiny_tokenizer(),
        feature_extractor=tiny.feature_extractor(),
        image_encoder=tiny.image_encoder(),
        **_unclip_decoder_parts(),
    )
    return tiny.quiet(pipeline)


def stable_cascade_prior(seed: int = 0) -> Any:
    """Stable Cascade's first pipeline, which turns a prompt into an image embedding."""
    import diffusers
    from diffusers.models import StableCascadeUNet

    torch.manual_seed(seed)
    prior = StableCascadeUNet(
        conditioning_dim=16,
        block_out_channels=(16, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        clip_image_in_channels=tiny.EMBED,
        clip_text_in_channels=tiny.WIDTH,
        clip_text_pooled_in_channels=tiny.EMBED,
        in_channels=4,
        out_channels=4,
        switch_level=(False,),
    )
    pipeline = diffusers.StableCascadePriorPipeline(
        tokenizer=tiny.tiny_tokenizer(),
        text_encoder=_projecting(tiny.WIDTH),
        prior=prior.eval(),
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        resolution_multiple=42.67,
        feature_extractor=tiny.feature_extractor(),
        image_encoder=tiny.image_encoder(),
    )
    return tiny.quiet(pipeline)


def pixart(seed: int = 0) -> Any:
    """PixArt, which has T5 and no CLIP encoder."""
    import diffusers
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    t5 = T5Config(vocab_size=60, d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4)
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=32,
        out_channels=8,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
    )
    pipeline = diffusers.PixArtAlphaPipeline(
        tokenizer=tiny.tiny_tokenizer(),
        text_encoder=T5EncoderModel(t5).eval(),
        transformer=transformer.eval(),
        scheduler=tiny.scheduler(),
        vae=tiny.tiny_vae(),
    )
    return tiny.quiet(pipeline)


def save_ip_adapter(folder: Path, unet: Any = None) -> Path:
    """Write a random IP-Adapter for a tiny denoiser as checkpoints have it, its image encoder beside it."""
    from safetensors.torch import save_file

    weights = tiny.ip_adapter_weights(tiny.stable_diffusion().unet if unet is None else unet)
    flat = {f"{part}.{name}": tensor.contiguous() for part, held in weights.items() for name, tensor in held.items()}
    tiny.image_encoder().save_pretrained(folder / "image_encoder")
    save_file(flat, folder / "ip-adapter.safetensors")
    return folder / "ip-adapter.safetensors"


def save_lora(folder: Path, fits: bool = True) -> Path:
    """Write a random LoRA on the tiny denoiser's attention; without `fits`, one of layers it does not have."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save_file

    unet = tiny.stable_diffusion().unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(unet)
    if fits:
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        other = {f"transformer.blocks.9.{n}.lora_A.weight": torch.ones(2, 4) for n in ("to_q", "to_v")}
        save_file(other, folder / "pytorch_lora_weights.safetensors")
    return folder
