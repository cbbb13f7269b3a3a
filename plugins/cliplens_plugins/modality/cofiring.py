"""Co-firing (ours): the phi coefficient between "fires on the image" and "fires on the caption" of a pair.

It says whether a latent stands for something both modalities carry, where the modality score only says where the latent
fires: the best separator of shared from single-modality latents when a dictionary splits shared concepts in two halves.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import Array, like
from cliplens.tally import Sums
from cliplens_plugins.modality.sums import sums_of_codes


def phi(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Phi from sums: (p11 - p1 p2) / sqrt(p1 (1-p1) p2 (1-p2)); 0 where a side is constant, nan for the dead."""
    n, both = sums["pairs"].double(), sums["fires_both"].double()
    image, text = sums["fires_image"].double(), sums["fires_text"].double()
    spread = (image * (n - image) * text * (n - text)).sqrt()
    value = torch.where(spread > 0, (n * both - image * text) / spread.clamp_min(1e-300), 0.0)
    return torch.where(sums["any"] > 0, value, torch.nan)


def cofiring(image_codes: Array, text_codes: Array) -> Array:
    """Phi between image and caption firing of every latent.

    Args:
        image_codes: [pair, latent], torch or numpy.
        text_codes: [pair, latent], in step.

    Returns:
        [latent], float64, of the kind given. Range [-1, 1]; 0 where a side is constant; nan = never fires.

    Raises:
        InputError: the shapes differ.
        NonFiniteError: nan or inf among the codes.

    Source: ours.
    """
    return like(phi(sums_of_codes(image_codes, text_codes)), image_codes)
