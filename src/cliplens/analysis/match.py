"""Attribute the similarity of images and captions to the latents, or heads, of both towers."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.analysis.heads import attribute_heads
from cliplens.analysis.latents import attribute_latents
from cliplens.analysis.parts import Attribution
from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower


@dataclass(frozen=True)
class Match:
    """Two attributions of the same similarities. Each of them adds up to the similarity, so do not add the two."""

    similarity: Float[Tensor, " batch"]
    """Cosine similarity of each image and its caption, in [-1, 1]."""
    image: Attribution
    """Contributions of the parts of the vision tower, with the caption embedding fixed."""
    text: Attribution
    """Contributions of the parts of the text tower, with the image embedding fixed."""


@renamed_keywords(image="image_dictionary", text="text_dictionary")
def attribute_match(
    clip: HookedCLIP,
    images: Float[Tensor, "batch 3 height width"],
    tokens: Int[Tensor, "batch context"],
    dictionary: Any = None,
    *,
    image_dictionary: Any = None,
    text_dictionary: Any = None,
) -> Match:
    """Attribute the similarity of each pair to the latents of a dictionary; without one, to heads and MLPs.

    Args:
        clip: a model with both towers.
        images: preprocessed images, one per pair.
        tokens: token ids of the captions, one row per pair.
        dictionary: a cliplens `Dictionary` for both towers.
        image_dictionary: a dictionary for the vision tower, used in place of `dictionary`; see `attribute_latents`.
        text_dictionary: a dictionary for the text tower, used in place of `dictionary`.

    Raises:
        InputError: the model has only one tower, or `attribute_latents` refuses the dictionary.
        MismatchError: a dictionary does not have the width of its hook.
    """
    if clip.text is None or clip.vision is None:
        raise InputError(expected="a model with both towers", found="one tower only", fix="call attribute_latents")
    with torch.no_grad():
        seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    return Match(
        (seen * read).sum(-1),
        _side(clip.vision, images, read, dictionary if image_dictionary is None else image_dictionary),
        _side(clip.text, tokens, seen, dictionary if text_dictionary is None else text_dictionary),
    )


def _side(tower: HookedTower, inputs: Tensor, towards: Tensor, dictionary: Any) -> Attribution:
    if dictionary is None:
        return attribute_heads(tower, inputs, towards)
    return attribute_latents(tower, inputs, towards, dictionary)
