"""Read the residual stream after every block of one ViT with one peer.

The time is the CPU time of a forward that keeps the stream after each block, divided by that of the model alone, in
turns in one process.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _case import Options, arrays, main, model, ratios

Read = Callable[[torch.Tensor], list[torch.Tensor]]
"""Function of pictures that returns the stream after each block, [batch, position, width]."""


def plain(visual: Any) -> Read:
    """Return a reader by forward hooks of PyTorch on the blocks."""

    def read(images: torch.Tensor) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        handles = [
            block.register_forward_hook(lambda module, inputs, output: kept.append(output))
            for block in visual.transformer.resblocks
        ]
        try:
            visual(images)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    return read


def measured(asked: Options, made: Callable[[Any], Read]) -> dict[str, Any]:
    """Return the ratio of times, and the largest difference from plain hooks."""
    visual = model(asked).visual
    images = arrays(asked, "pixels")["pixels"][: asked.batch]
    with torch.no_grad():
        expected = plain(visual)(images)
        read = made(model(asked).visual)
        apart = max(float((a - b).abs().max()) for a, b in zip(expected, read(images), strict=True))
        return ratios(lambda: visual(images), lambda: read(images), asked.rounds) | {"largest_difference": apart}


def plain_hooks(asked: Options) -> dict[str, Any]:
    """Forward hooks of PyTorch."""
    return measured(asked, plain)


def open_clip(asked: Options) -> dict[str, Any]:
    """open_clip's own `forward_intermediates`."""

    def made(visual: Any) -> Read:
        def read(images: torch.Tensor) -> list[torch.Tensor]:
            found = visual.forward_intermediates(images, output_fmt="NLC", output_extra_tokens=True)
            pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
            return [torch.cat(pair, dim=1) for pair in pairs]

        return read

    return measured(asked, made)


def cliplens(asked: Options) -> dict[str, Any]:
    """Our hooked tower with `run_with_cache`."""
    import cliplens

    def made(visual: Any) -> Read:
        whole = model(asked)
        clip = cliplens.wrap(whole, check=False)
        names = [f"blocks.{n}.hook_resid_post" for n in range(len(visual.transformer.resblocks))]

        def read(images: torch.Tensor) -> list[torch.Tensor]:
            _, cache = clip.vision.run_with_cache(images, names_filter=names)  # type: ignore[union-attr]
            return [cache[name] for name in names]

        return read

    return measured(asked, made)


def nnsight(asked: Options) -> dict[str, Any]:
    """nnsight's trace."""
    from nnsight import NNsight

    def made(visual: Any) -> Read:
        traced = NNsight(visual)

        def read(images: torch.Tensor) -> list[torch.Tensor]:
            kept = []
            with traced.trace(images):
                for block in traced.transformer.resblocks:
                    kept.append(block.output.save())
            return kept

        return read

    return measured(asked, made)


def sae_lens(asked: Options) -> dict[str, Any]:
    """SAELens' HookedProxyLM around the tower, as `use_error_term` hosts get it."""
    from sae_lens.load_model import HookedProxyLM

    def made(visual: Any) -> Read:
        names = [f"transformer.resblocks.{n}" for n in range(len(visual.transformer.resblocks))]
        proxy = HookedProxyLM(visual, None, hook_names=names)  # type: ignore[arg-type]

        def read(images: torch.Tensor) -> list[torch.Tensor]:
            _, cache = proxy.run_with_cache(images, names_filter=names)
            return [cache[name] for name in names]

        return read

    return measured(asked, made)


def vit_prisma(asked: Options) -> dict[str, Any]:
    """ViT-Prisma's HookedViT with the weights converted by its loader."""

    def made(visual: Any) -> Read:
        tower = prisma_tower(asked)
        names = [f"blocks.{n}.hook_resid_post" for n in range(len(visual.transformer.resblocks))]

        def read(images: torch.Tensor) -> list[torch.Tensor]:
            _, cache = tower.run_with_cache(images, names_filter=names)
            return [cache[name] for name in names]

        return read

    return measured(asked, made)


def prisma_tower(asked: Options) -> Any:
    """Return ViT-Prisma's tower. Its configuration is read from open_clip, as the hub is not asked."""
    import open_clip
    from vit_prisma.models import model_loader

    name = (asked.given / "model.txt").read_text()
    config = open_clip.get_model_config(name)
    model_loader._get_open_clip_config = lambda *args: config
    known = {"ViT-B-32": "open-clip:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"}
    return model_loader.load_hooked_model(known[name], device="cpu", local_path=str(asked.given / "weights.pt")).eval()


def saev(asked: Options) -> dict[str, Any]:
    """saev's RecordedVisionTransformer."""
    from saev.activations import Clip, RecordedVisionTransformer

    def made(visual: Any) -> Read:
        layers = list(range(len(visual.transformer.resblocks)))
        name = (asked.given / "model.txt").read_text()
        with in_folder(asked.given):
            tower = Clip(f"{name}/weights.pt")
        patches = visual.grid_size[0] * visual.grid_size[1]
        recorded = RecordedVisionTransformer(tower, patches, True, layers)

        def read(images: torch.Tensor) -> list[torch.Tensor]:
            return list(recorded(images)[1].unbind(1))

        return read

    return measured(asked, made)


def transformer_lens(asked: Options) -> dict[str, Any]:
    """TransformerLens' bridge, asked for a CLIP tower of Hugging Face's layout."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import CLIPVisionConfig, CLIPVisionModel

    small = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    with tempfile.TemporaryDirectory() as folder:
        CLIPVisionModel(small).save_pretrained(folder)
        TransformerBridge.boot_transformers(folder)
    raise NotImplementedError("the bridge opens a CLIP tower now: add a reader for it")


class in_folder:  # noqa: N801
    """Work in a folder for a while: some loaders split names at slashes, so a path must have none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        import os

        self.before = Path.cwd()
        os.chdir(self.folder)

    def __exit__(self, *error: object) -> None:
        import os

        os.chdir(self.before)


PEERS = (plain_hooks, open_clip, cliplens, nnsight, sae_lens, vit_prisma, saev, transformer_lens)

if __name__ == "__main__":
    main({f.__name__: f for f in PEERS}, __doc__, batch=8, rounds=9)
