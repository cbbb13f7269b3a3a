"""A dictionary of the same shape that was never trained: the control for every figure of a trained one."""

import torch
from sae_lens import TopKSAEConfig
from sae_lens.saes.topk_sae import TopKSAE

from cliplens.sae.dictionary import Dictionary


@torch.no_grad()
def untrained_twin(dictionary: Dictionary, k: int, *, seed: int = 0) -> Dictionary:
    """Return a dictionary with random unit decoder rows, their transpose as the encoder, and k latents per row.

    It keeps the means, sites and width of the given one. Random dictionaries score nearly as well as trained ones on
    some figures (arXiv 2602.14111), so a figure is quoted beside that of its twin.

    Args:
        dictionary: the trained one.
        k: latents per row: the mean number of latents that the trained one fires.
        seed: of the random rows.
    """
    made = TopKSAE(TopKSAEConfig(d_in=dictionary.d_in, d_sae=dictionary.d_sae, k=min(k, dictionary.d_sae)))
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(dictionary.d_sae, dictionary.d_in, generator=draw)
    made.W_dec.copy_(torch.nn.functional.normalize(rows, dim=1))
    made.W_enc.copy_(made.W_dec.T)
    for bias in (made.b_enc, made.b_dec):
        bias.zero_()
    moved = made.requires_grad_(False).to(dictionary.device)
    return Dictionary(moved, dictionary.means, dictionary.provenance)
