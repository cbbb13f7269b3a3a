"""Compute bootstrap replicates of the Modality Dominance Score from sums that can be streamed and merged."""

import numpy as np
import torch
from jaxtyping import Float
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
    index = (joint.latents.cpu().numpy(), joint.rows.cpu().numpy())
    for name, values in (("weight", np.ones_like(d)), ("d", d)):
        matrix = csr_matrix((values, index), shape=(codes.d_sae, len(codes)))
        sums.add(name, torch.as_tensor(matrix @ weights))


def replicates(sums: Sums) -> Float[Tensor, "d_sae replicate"]:
    """Return the score of each latent in each replicate; nan where the replicate drew none of its firing pairs."""
    return 0.5 + sums["d"] / sums["weight"]
