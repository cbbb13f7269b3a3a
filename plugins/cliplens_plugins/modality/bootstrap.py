"""Compute bootstrap replicates of the Modality Dominance Score from sums that can be streamed and merged."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import csr_matrix
from torch import Tensor

from cliplens.records import PairedCodes
from cliplens.statistics import poisson_weights
from cliplens.tally import Sums


def add_replicates(sums: Sums, codes: PairedCodes, n_replicates: int) -> None:
    """Add a batch: for each latent and replicate, the weights of its firing pairs and their weighted ratios."""
    joint = codes.joint
    weights = poisson_weights(codes.keys, n_replicates)
    image, text = joint.image.double().abs(), joint.text.double().abs()
    d = (image / (image + text) - 0.5).cpu().numpy()
    firing, place = torch.unique(joint.latents.cpu(), return_inverse=True)
    index = (place.numpy(), joint.rows.cpu().numpy())
    for name, values, drawn in (("weight", np.ones(len(d), np.int32), weights.astype(np.int32)), ("d", d, weights)):
        matrix = csr_matrix((values, index), shape=(len(firing), len(codes)))
        sums.add_rows(name, firing, torch.as_tensor(matrix @ drawn), codes.d_sae)


def replicates(sums: Sums, latents: Int64[Tensor, " some"] | None = None) -> Float[Tensor, "some replicate"]:
    """Return the score of each latent, or of some, in each replicate; nan where it drew none of its firing pairs."""
    chosen = slice(None) if latents is None else latents
    return 0.5 + sums["d"][chosen] / sums["weight"][chosen]
