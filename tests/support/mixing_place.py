"""A folder as a user of `cliplens steer --mix` has it: a run on a tiny CLIP, pipelines of it and of another."""

import csv
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from typer.testing import CliRunner

from cliplens.cli import app as cliplens_app
from support import tiny_pipelines as tiny
from support import tiny_variants as variants

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (30, 160, 60)}


def tiny_clip() -> Any:
    """A CLIP of transformers, both towers, in the sizes of the tiny pipelines."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text, vision = tiny.text_config(tiny.tiny_tokenizer(), tiny.EMBED), tiny.vision_config()
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=tiny.EMBED)
    ).eval()


def narrow(seed: int = 0) -> Any:
    """A Stable Diffusion whose text encoder is as wide as the embedding, as ViT-L/14 is."""
    from transformers import CLIPTextModel

    pipeline = tiny.stable_diffusion(seed=seed, cross_attention_dim=tiny.EMBED)
    torch.manual_seed(seed)
    encoder = CLIPTextModel(tiny.text_config(tiny.tiny_tokenizer(), tiny.EMBED)).eval()
    pipeline.register_modules(text_encoder=encoder)
    return pipeline


def take_weights(encoder: Any, clip: Any) -> None:
    """Give an encoder of a pipeline the weights of the run's model."""
    given = clip.state_dict() | clip.text_model.state_dict()
    encoder.load_state_dict(
        {k: given[k if k in given else k.removeprefix("text_model.")] for k in encoder.state_dict()}
    )


def make(path: Path) -> None:
    """Write a run on both embeddings of the tiny CLIP, pipelines with its encoders, and pictures of their own."""
    clip = tiny_clip()
    clip.save_pretrained(path / "clip")
    tiny.tiny_tokenizer().save_pretrained(path / "clip")
    tiny.feature_extractor().save_pretrained(path / "clip")
    rng = random.Random(0)
    captions = [f"{rng.choice(['a', 'the'])} {rng.choice([*COLOURS])} {rng.choice('xyz')}" for _ in range(120)]
    for n, caption in enumerate(captions):
        noise = np.random.default_rng(n).integers(-25, 25, (32, 32, 3))
        Image.fromarray((np.array(COLOURS[caption.split()[1]]) + noise).clip(0, 255).astype(np.uint8)).save(
            path / f"{n}.png"
        )
    with (path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *([f"{n}.png", c] for n, c in enumerate(captions))])
    of_colour = {caption.split()[1]: path / f"{n}.png" for n, caption in enumerate(captions)}
    for name, colour in (("own", "red"), ("other", "blue"), ("second", "green"), ("own2", "green")):
        shutil.copy(of_colour[colour], path / f"{name}.png")
    small = ["--d-sae", "64", "--k", "4", "--samples", "4000", "--batch-size", "256", "--namer", "captions"]
    where = ["--model", f"hf:{path / 'clip'}", "--pairs", str(path / "pairs.csv"), "--out", str(path / "run")]
    done = CliRunner().invoke(cliplens_app, ["run", *where, *small])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    drawing = narrow()
    take_weights(drawing.text_encoder, clip)
    drawing.save_pretrained(path / "sd15")
    narrow(3).save_pretrained(path / "another")
    from_words, from_picture = tiny.stable_unclip(), tiny.stable_unclip_img2img()
    from_words.save_pretrained(path / "another-unclip")
    take_weights(from_words.prior_text_encoder, clip)
    from_words.save_pretrained(path / "unclip")
    take_weights(from_picture.image_encoder, clip)
    from_picture.save_pretrained(path / "unclip-img2img")
    (path / "another-adapter").mkdir()
    variants.save_ip_adapter(path / "another-adapter", drawing.unet)
    variants.save_ip_adapter(path, drawing.unet)
    from_picture.image_encoder.save_pretrained(path / "image_encoder")
    for name in ("l14-run", "h14-run"):  # as the page names the runs
        (path / name).symlink_to(path / "run")
