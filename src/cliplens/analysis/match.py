"""Why an image and a caption match: both towers' shares of one similarity."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.analysis.heads import attribute_heads
from cliplens.analysis.latents import attribute_latents
from cliplens.analysis.parts import Attribution
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower


@dataclass(frozen=True)
class Match:
    """The same similarities taken apart twice: `image` says what in the image matches the caption as it is, `text` what
    in the caption matches the image as it is. The two are two views of one number and are not to be added."""

    similarity: Float[Tensor, " batch"]
    image: Attribution
    text: Attribution


def attribute_match(
    clip: HookedCLIP, images: Tensor, tokens: Tensor, dictionary: Any = None, *, image: Any = None, text: Any = None
) -> Match:
    """Which latents of which tower make these pairs match; which heads and MLPs, where no dictionary is given.

    Args:
        clip: a model with both towers.
        images: one per pair.
        tokens: token ids, one row per pair.
        dictionary: a cliplens `Dictionary` that reads both modalities; `image` and `text` go before it.
        image: a dictionary for the vision tower, see `attribute_latents`.
        text: a dictionary for the text tower.

    Raises:
        InputError: no text tower, or what `attribute_latents` refuses.
    """
    if clip.text is None or clip.vision is None:
        raise InputError(expected="a model with both towers", found="one tower only", fix="use attribute_latents")
    with torch.no_grad():
        seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    return Match(
        (seen * read).sum(-1),
        _side(clip.vision, images, read, dictionary if image is None else image),
        _side(clip.text, tokens, seen, dictionary if text is None else text),
    )


def _side(tower: HookedTower, inputs: Tensor, towards: Tensor, dictionary: Any) -> Attribution:
    if dictionary is None:
        return attribute_heads(tower, inputs, towards)
    return attribute_latents(tower, inputs, towards, dictionary)
