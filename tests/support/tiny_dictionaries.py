"""Small random dictionaries whose latents really fire."""

from typing import Any

import torch
from sae_lens import JumpReLUSAEConfig, StandardSAEConfig, TopKSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE
from sae_lens.saes.standard_sae import StandardSAE
from sae_lens.saes.topk_sae import TopKSAE
from torch import Tensor

from cliplens.records import ModelIdentity, Provenance
from cliplens.sae import Dictionary

IDENTITY = ModelIdentity("tiny", None, "w" * 64, "resize", "p" * 64, "t" * 64)


def tiny_dictionary(
    d_in: int = 32,
    d_sae: int = 48,
    *,
    sites: tuple[str, ...] = (),
    means: bool = False,
    architecture: str = "standard",
    normalize: str = "none",
    seed: int = 0,
) -> Dictionary:
    """A random dictionary of unit-norm decoder rows; `sites` give it a provenance."""
    common: dict[str, Any] = {"d_in": d_in, "d_sae": d_sae, "device": "cpu", "normalize_activations": normalize}
    made: Any = {
        "standard": lambda: StandardSAE(StandardSAEConfig(**common)),
        "topk": lambda: TopKSAE(TopKSAEConfig(k=6, **common)),
        "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**common)),
    }[architecture]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rows = torch.randn(d_sae, d_in, generator=generator)
        made.W_dec.copy_(rows / rows.norm(dim=-1, keepdim=True))
        made.W_enc.copy_(made.W_dec.T)
        for name in ("b_enc", "b_dec"):
            bias = getattr(made, name)
            bias.copy_(0.1 * torch.randn(bias.shape, generator=generator))
        if hasattr(made, "threshold"):
            made.threshold.fill_(0.05)
    mean: dict[str, Tensor] | None = None
    if means:
        mean = {m: torch.randn(d_in, generator=generator) for m in ("image", "text")}
    source = Provenance(IDENTITY, sites, d_in, "auto", means) if sites else None
    return Dictionary(made.requires_grad_(False), mean, source)  # type: ignore[arg-type]
