"""Check that a pipeline whose image embedding is mixed has the CLIP of the run, which encodes the reference."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn import functional as F

from cliplens.errors import MismatchError
from cliplens.sites import Site
from cliplens_plugins.steering.ports import diffusion
from cliplens_plugins.steering.ports.compiled import unwrapped

SAME = 0.9
"""Least cosine of two embeddings of a sample to count as the same encoder: each may resize a picture in its own way."""
_PROBE = "a photo of a red ring"


@torch.no_grad()
def check_same_model(pipeline: Any, sites: Sequence[Site], run: Any, picture: Image.Image | None) -> None:
    """Compare embeddings of the same sample: of a picture, or of words by the text encoder of a prior.

    A pipeline that has neither encoder beside the site cannot be compared, and passes.

    Args:
        pipeline: the pipeline.
        sites: the sites to steer; only those of images are compared.
        run: the opened run.
        picture: a picture that the pipeline is given; None without one.

    Raises:
        MismatchError: the embeddings differ.
    """
    if not any(site.side == "vision" for site in sites):
        return
    found = _of_picture(pipeline, run, picture) if picture is not None else _of_words(pipeline, run)
    if found is None:
        return
    kind, theirs, ours = found
    same = theirs.shape == ours.shape
    cosine = float(F.cosine_similarity(theirs, ours, dim=0)) if same else float("nan")
    if not cosine >= SAME:
        raise MismatchError(
            expected=f"a pipeline whose {kind} encoder is that of the run's model {run.clip.identity.name}",
            found=f"another one: their embeddings of the same {kind} have a cosine of {cosine:.2f}",
            fix="make a run on the CLIP of the pipeline, such as ViT-H-14 with laion2b_s32b_b79k for IP-Adapter",
        )


def _of_picture(pipeline: Any, run: Any, picture: Image.Image) -> tuple[str, torch.Tensor, torch.Tensor] | None:
    holder = diffusion.drawing_from_words(pipeline)
    encoder, extract = getattr(holder, "image_encoder", None), _extractor(holder)
    if encoder is None or extract is None or "vision" not in run.clip.towers:
        return None
    inner = unwrapped(encoder)
    like = next(inner.parameters())
    pixels = extract(images=picture, return_tensors="pt").pixel_values.to(like)
    return "image", inner(pixels).image_embeds[0].float().cpu(), run.embed([picture])[0].float().cpu()


def _extractor(holder: Any) -> Any:
    found = getattr(holder, "feature_extractor", None) or getattr(holder, "image_processor", None)
    return found if hasattr(found, "crop_size") else None  # and not the one of an autoencoder


def _of_words(pipeline: Any, run: Any) -> tuple[str, torch.Tensor, torch.Tensor] | None:
    encoder, words = getattr(pipeline, "prior_text_encoder", None), getattr(pipeline, "prior_tokenizer", None)
    if encoder is None or words is None or "text" not in run.clip.towers:
        return None
    inner = unwrapped(encoder)
    length = words.model_max_length
    given = words([_PROBE], padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    theirs = inner(given.to(next(inner.parameters()).device)).text_embeds[0]
    return "text", theirs.float().cpu(), run.embed([_PROBE])[0].float().cpu()
