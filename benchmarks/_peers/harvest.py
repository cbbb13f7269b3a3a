"""Read a folder of pictures through one ViT with one peer, by the peer's own reader, and keep its activations.

Every peer decodes the same PNG files and runs the same weights in batches of the same size, one thread. What it keeps
differs: one token or all, float16 or float32, on disk or in memory; the row says so. The time is the CPU time, without
loading the model, divided by that of the forwards alone on prepared pixels.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _case import Options, arrays, main, model, seconds
from torch import Tensor

from forward import in_folder, plain, prisma_tower

Harvest = Callable[[Path], None]
"""Function of an empty folder: the work that is timed."""
Back = Callable[[Path], tuple[Tensor, Tensor]]
"""Function of the folder that returns what was kept, [picture, ...], and what that should be, in any order."""


def measured(asked: Options, kept: str, harvest: Harvest, back: Back) -> dict[str, Any]:
    """Return the times, and the largest difference between what was kept and what it should be."""
    visual = model(asked).visual
    pixels = arrays(asked, "pixels")["pixels"]
    found = []
    for _ in range(asked.rounds):
        with torch.no_grad():
            alone = seconds(lambda: [visual(batch) for batch in pixels.split(asked.batch)])
        with tempfile.TemporaryDirectory() as folder:
            found.append(seconds(lambda: harvest(Path(folder))) / alone)
            rows, expected = (x.detach().float().flatten(1) for x in back(Path(folder)))
    assert rows.shape == expected.shape, f"{tuple(rows.shape)} were kept of {tuple(expected.shape)}"
    apart = max(float((expected - row).abs().amax(1).min()) for row in rows)
    return {"ratio": float(np.median(found)), "ratios": found, "kept": kept, "largest_difference": apart}


def stream(asked: Options) -> Tensor:
    """Return the stream after the last block, [picture, position, width], by plain hooks; computed once."""
    if not hasattr(asked, "stream"):
        visual = model(asked).visual
        with torch.no_grad():
            parts = [plain(visual)(batch)[-1] for batch in arrays(asked, "pixels")["pixels"].split(asked.batch)]
        asked.stream = torch.cat(parts)
    return asked.stream  # type: ignore[no-any-return]


def pictures(asked: Options) -> list[Path]:
    return sorted((asked.given / "pictures").rglob("*.png"))


def cliplens(asked: Options) -> dict[str, Any]:
    """Our `harvest` of one folder of pictures, the stream of all tokens of the last block."""
    import open_clip
    from PIL import Image

    import cliplens
    from cliplens.pairs import Pairs
    from cliplens.sites import Site
    from cliplens.store import Cache
    from cliplens.store import harvest as harvested

    name = (asked.given / "model.txt").read_text()
    _, _, preprocess = open_clip.create_model_and_transforms(name)
    clip = cliplens.wrap(model(asked), preprocess=preprocess, tokenizer=open_clip.get_tokenizer(name), check=False)
    last = clip.vision.cfg.n_layers - 1  # type: ignore[union-attr]
    site = Site("vision", f"blocks.{last}.hook_resid_post")

    def harvest(folder: Path) -> None:
        files = pictures(asked)
        pairs = Pairs([p.stem for p in files], [Image.open(p) for p in files], [""] * len(files), name="pictures")
        harvested(clip, pairs, [site], folder / "cache", token="all", forward_batch=asked.batch)

    def back(folder: Path) -> tuple[Tensor, Tensor]:
        (batch,) = Cache.open(folder / "cache").batches(image=site, text=None, batch_size=10**9)
        return batch.image.reshape(len(pictures(asked)), -1), stream(asked)

    return measured(asked, "all tokens, float16, on disk", harvest, back)


def vit_prisma(asked: Options) -> dict[str, Any]:
    """ViT-Prisma's VisionActivationsStore, whose buffer is in memory."""
    import torchvision
    from open_clip import image_transform
    from vit_prisma.sae.config import VisionModelSAERunnerConfig
    from vit_prisma.sae.training.activations_store import VisionActivationsStore

    tower = prisma_tower(asked)
    size = tower.cfg.image_size
    data = torchvision.datasets.ImageFolder(str(asked.given / "pictures"), image_transform(size, is_train=False))
    last = tower.cfg.n_layers - 1
    config = VisionModelSAERunnerConfig(
        hook_point_layer=last, layer_subtype="hook_resid_post", store_batch_size=asked.batch, _device="cpu",
        d_in=tower.cfg.d_model, context_size=(size // tower.cfg.patch_size) ** 2 + 1, log_to_wandb=False,
    )  # fmt: skip
    held: list[Tensor] = []

    def harvest(folder: Path) -> None:
        store = VisionActivationsStore(config, tower, data, create_dataloader=False)
        held[:] = [store.get_buffer(len(data) // asked.batch)]

    def back(folder: Path) -> tuple[Tensor, Tensor]:
        return held[0].flatten(1), stream(asked).flatten(0, 1)

    return measured(asked, "all tokens, float32, in memory, shuffled", harvest, back)


def saev(asked: Options) -> dict[str, Any]:
    """saev's shards. Its own transform is open_clip's, for which it would open the model once more."""
    from open_clip import image_transform
    from saev import activations, config

    name = (asked.given / "model.txt").read_text()
    visual = model(asked).visual
    shape = visual.grid_size[0] * visual.grid_size[1], visual.conv1.out_channels
    last = len(visual.transformer.resblocks) - 1
    with in_folder(asked.given):
        tower = activations.make_vit("clip", f"{name}/weights.pt")

    def opened(*names: str) -> Any:
        for block in tower.get_residuals():
            block._forward_hooks.clear()  # those of the harvest before
        return tower

    activations.make_vit = opened
    activations.make_img_transform = lambda *names: image_transform(visual.image_size, is_train=False)

    def harvest(folder: Path) -> None:
        activations.worker_fn(
            config.Activations(
                data=config.ImageFolderDataset(root=str(asked.given / "pictures")),
                dump_to=str(folder),
                vit_ckpt=f"{name}/weights.pt",
                vit_batch_size=asked.batch,
                n_workers=0,
                d_vit=shape[1],
                vit_layers=[last],
                n_patches_per_img=shape[0],
                n_patches_per_shard=(shape[0] + 1) * 128,
                device="cpu",
            )
        )

    def back(folder: Path) -> tuple[Tensor, Tensor]:
        (file,) = folder.rglob("acts*.bin")
        rows = np.memmap(file, dtype=np.float32).reshape(-1, (shape[0] + 1) * shape[1])[: len(pictures(asked))]
        return torch.tensor(rows), stream(asked)

    return measured(asked, "all tokens, float32, on disk", harvest, back)


def visaebench(asked: Options) -> dict[str, Any]:
    """ViSAEBench's cache, with a backbone of ours: its own ones load weights from a hub."""
    from open_clip import image_transform
    from PIL import Image
    from visaebench import extract_and_cache_activations

    visual = model(asked).visual
    read = plain(visual)
    prepare = image_transform(visual.image_size, is_train=False)

    class Backbone:
        def extract_activations(self, images: list[Image.Image], *, layer: int = -1) -> Tensor:
            return read(torch.stack([prepare(i) for i in images]))[layer][:, 1:]

    class Opened:
        def __len__(self) -> int:
            return len(pictures(asked))

        def __getitem__(self, n: int) -> Image.Image:
            return Image.open(pictures(asked)[n])

    def harvest(folder: Path) -> None:
        given = {"layer": len(visual.transformer.resblocks) - 1, "batch_size": asked.batch, "show_progress": False}
        extract_and_cache_activations(Backbone(), "given", images=Opened(), cache_dir=folder, **given)

    def back(folder: Path) -> tuple[Tensor, Tensor]:
        (file,) = folder.rglob("shard_*.pt")
        return torch.load(file), stream(asked)[:, 1:]

    return measured(asked, "patch tokens, float16, on disk", harvest, back)


def clip_retrieval(asked: Options) -> dict[str, Any]:
    """clip-retrieval's inference, which keeps the final embedding."""
    from all_clip import load_clip
    from clip_retrieval.clip_inference.main import main as inference

    name = (asked.given / "model.txt").read_text()
    given = {"clip_model": f"open_clip:{name}/{asked.given / 'weights.pt'}", "use_jit": False, "clip_cache_path": None}
    load_clip(warmup_batch_size=asked.batch, **given)

    def harvest(folder: Path) -> None:
        inference(
            str(asked.given / "pictures"), str(folder), batch_size=asked.batch, num_prepro_workers=1,
            enable_text=False, **given,
        )  # fmt: skip

    def back(folder: Path) -> tuple[Tensor, Tensor]:
        rows = [torch.from_numpy(np.load(file)) for file in sorted((folder / "img_emb").glob("*.npy"))]
        whole = model(asked)
        with torch.no_grad():
            return torch.cat(rows), whole.encode_image(arrays(asked, "pixels")["pixels"], normalize=True)

    with contextlib.redirect_stdout(None):
        return measured(asked, "final embedding, float16, on disk", harvest, back)


def sae_lens(asked: Options) -> dict[str, Any]:
    """SAELens' cache runner, which reads tokens of a text dataset."""
    raise NotImplementedError("CacheActivationsRunner reads token ids of a text dataset; no way to give it pictures")


PEERS = (cliplens, vit_prisma, saev, visaebench, clip_retrieval, sae_lens)

if __name__ == "__main__":
    main({f.__name__: f for f in PEERS}, __doc__, batch=16, rounds=1)
