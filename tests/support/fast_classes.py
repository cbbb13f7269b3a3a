"""Stock training classes and their fast counterparts, with the same weights."""

import torch
from sae_lens.registry import get_sae_training_class
from sae_lens.saes.sae import TrainingSAE

from cliplens.sae import dictionary_config

D_IN, D_SAE, K = 16, 60, 4


def stock_and_fast(stock: str, **options: object) -> tuple[TrainingSAE, TrainingSAE]:
    """Return a stock class and its fast counterpart with the same weights and decoder norms far from 1."""
    made = []
    for architecture in (stock, f"fast_{stock}"):
        torch.manual_seed(0)
        config = dictionary_config(architecture, D_IN, D_SAE, k=K, dtype="float64", **options)
        sae = get_sae_training_class(architecture)[0](config)
        with torch.no_grad():
            sae.W_dec.mul_(0.5 + torch.arange(D_SAE).unsqueeze(1) % 5)
            sae.b_enc.copy_(0.1 * torch.sin(torch.arange(D_SAE)))
            sae.b_dec.copy_(0.1 * torch.cos(torch.arange(D_IN)))
        made.append(sae)
    return made[0], made[1]
