"""Make an untrained dictionary of the same shape, a control for the figures of a trained one."""

import torch
from sae_lens import TopKSAEConfig
from sae_lens.saes.topk_sae import TopKSAE

from cliplens.sae.dictionary import Dictionary


@torch.no_grad()
def untrained_twin(dictionary: Dictionary, k: int, *, seed: int = 0) -> Dictionary:
    """Return a dictionary with random unit decoder rows, their transpose as the encoder, and k latents per row.

    Means, sites and width are those of the trained dictionary. In some figures, random dictionaries are nearly as good
    as trained ones (arXiv 2602.14111), so both are reported.

    Args:
        dictionary: the trained dictionary.
        k: number of firing latents per row; take the mean number of the trained dictionary.
        seed: seed of the random rows.
    """
    made = TopKSAE(TopKSAEConfig(d_in=dictionary.d_in, d_sae=dictionary.d_sae, k=min(k, dictionary.d_sae)))
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(dictionary.d_sae, dictionary.d_in, generator=draw)
    made.W_dec.copy_(torch.nn.functional.normalize(rows))
    made.W_enc.copy_(made.W_dec.T)
    for bias in (made.b_enc, made.b_dec):
        bias.zero_()
    moved = made.requires_grad_(False).to(dictionary.device)
    return Dictionary(moved, dictionary.means, dictionary.provenance)
