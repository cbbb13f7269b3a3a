"""Measure co-firing (ours): the phi coefficient between "fires on the image" and "fires on the caption" of a pair.

The modality score measures only where a latent fires; co-firing measures whether it fires on both halves of the same
pairs. It separates shared from single-modality latents even if the dictionary splits shared concepts between two
latents.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import Array, like
from cliplens.tally import Sums
from cliplens_plugins.modality.sums import sums_of_codes


def phi(sums: Sums) -> Float[Tensor, " d_sae"]:
    """Return phi = (p11 - p1 p2) / sqrt(p1 (1-p1) p2 (1-p2)); 0 if a modality is constant, nan for dead latents."""
    n, both = sums["pairs"].double(), sums["fires_both"].double()
    image, text = sums["fires_image"].double(), sums["fires_text"].double()
    spread = (image * (n - image) * text * (n - text)).sqrt()
    value = torch.where(spread > 0, (n * both - image * text) / spread.clamp_min(1e-300), 0.0)
    return torch.where(sums["any"] > 0, value, torch.nan)


def cofiring(image_codes: Array, text_codes: Array) -> Array:
    """Return the phi coefficient between firing on the image and firing on the caption, for every latent.

    Args:
        image_codes: [pair, latent], torch or numpy.
        text_codes: [pair, latent], in the same order of pairs.

    Returns:
        [latent], float64, torch or numpy as the input. Range [-1, 1]; 0 if the latent fires on all or none of the
        images, or of the captions; nan if it never fires.

    Raises:
        InputError: the shapes differ.
        NonFiniteError: the codes contain nan or inf.

    Source: ours.

    >>> import numpy as np
    >>> fires = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> cofiring(fires, fires), cofiring(fires, 1 - fires)
    (array([1.]), array([-1.]))
    """
    return like(phi(sums_of_codes(image_codes, text_codes)), image_codes)
