"""A Stable Diffusion pipeline as one file in the layout it was published in: diffusers only reads that layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

Names = list[tuple[str, str]]
"""Pairs of the name in diffusers and the one in the file, applied in order."""

_RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
]
_ATTENTION = [
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
]


def save_single_file(pipeline: Any, path: Path) -> Path:
    """Write denoiser, autoencoder and text encoder of a pipeline of Stable Diffusion 1 into one file."""
    text = pipeline.text_encoder.state_dict()
    parts = {
        "model.diffusion_model.": dict(_denoiser(pipeline.unet)),
        "first_stage_model.": dict(_autoencoder(pipeline.vae)),
        "cond_stage_model.transformer.": {f"text_model.{n.removeprefix('text_model.')}": t for n, t in text.items()},
    }
    save_file({prefix + n: t.contiguous() for prefix, part in parts.items() for n, t in part.items()}, path)
    return path


def _denoiser(unet: Any) -> Iterator[tuple[str, Tensor]]:
    levels, layers = len(unet.config.block_out_channels), unet.config.layers_per_block
    names: Names = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
        ("mid_block.attentions.0.", "middle_block.1."),
        *((f"mid_block.resnets.{j}.", f"middle_block.{2 * j}.") for j in range(2)),
    ]
    for i in range(levels):
        first = (layers + 1) * i
        for j in range(layers):
            for n, kind in enumerate(("resnets", "attentions")):
                names.append((f"down_blocks.{i}.{kind}.{j}.", f"input_blocks.{first + j + 1}.{n}."))
        for j in range(layers + 1):
            for n, kind in enumerate(("resnets", "attentions")):
                names.append((f"up_blocks.{i}.{kind}.{j}.", f"output_blocks.{first + j}.{n}."))
        after = 2 if "CrossAttn" in unet.config.up_block_types[i] else 1
        names.append((f"down_blocks.{i}.downsamplers.0.conv.", f"input_blocks.{first + layers + 1}.0.op."))
        names.append((f"up_blocks.{i}.upsamplers.0.", f"output_blocks.{first + layers}.{after}."))
    for name, tensor in unet.state_dict().items():
        yield _renamed(name, names, _RESNET if "resnets" in name else []), tensor


def _autoencoder(vae: Any) -> Iterator[tuple[str, Tensor]]:
    levels, layers = len(vae.config.block_out_channels), vae.config.layers_per_block
    names: Names = [("mid_block.attentions.0.", "mid.attn_1.")]
    names += [(f"mid_block.resnets.{j}.", f"mid.block_{j + 1}.") for j in range(2)]
    for i in range(levels):
        names += [(f"down_blocks.{i}.resnets.{j}.", f"down.{i}.block.{j}.") for j in range(layers)]
        names += [(f"up_blocks.{i}.resnets.{j}.", f"up.{levels - 1 - i}.block.{j}.") for j in range(layers + 1)]
        names += [(f"down_blocks.{i}.downsamplers.0.", f"down.{i}.downsample.")]
        names += [(f"up_blocks.{i}.upsamplers.0.", f"up.{levels - 1 - i}.upsample.")]
    names += [("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")]
    for name, tensor in vae.state_dict().items():
        inside = "attentions" in name
        is_matrix = inside and tensor.ndim == 2  # published as convolutions of one pixel
        yield _renamed(name, names, _ATTENTION if inside else []), tensor[..., None, None] if is_matrix else tensor


def _renamed(name: str, names: Names, within: Names) -> str:
    for own, other in [*within, *names]:
        name = name.replace(own, other)
    return name
