"""Random dictionaries of every architecture, every bias away from zero, as SAELens saves them."""

from dataclasses import replace

import torch
from sae_lens import SAE
from sae_lens.registry import get_sae_training_class

from cliplens.sae import Dictionary, dictionary_config, inference
from support.streams import paired, provenance

D_IN, D_SAE, ROWS = 24, 60, 200
STOCK = (
    "standard",
    "gated",
    "topk",
    "abstopk",
    "batchtopk",
    "jumprelu",
    "matryoshka_batchtopk",
    "matching_pursuit",
)


def sae_of(architecture: str, *, reads_less_b_dec: bool = True, normalise: str = "none", dtype: str = "float32") -> SAE:
    """A random dictionary with every bias away from zero, as SAELens saves it."""
    config = dictionary_config(
        architecture,
        D_IN,
        D_SAE,
        k=6,
        apply_b_dec_to_input=reads_less_b_dec,
        normalize_activations=normalise,
        dtype=dtype,
    )
    torch.manual_seed(3)
    sae = get_sae_training_class(architecture)[0](replace(config))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name != "W_dec":
                parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.02)
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return inference(sae)


def dictionary_of(architecture: str, **options: object) -> Dictionary:
    acts = paired(ROWS, D_IN)
    means = {"image": acts.image.mean(0), "text": acts.text.mean(0)}
    return Dictionary(sae_of(architecture, **options), means, provenance(D_IN))
