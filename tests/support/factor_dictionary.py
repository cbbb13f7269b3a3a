"""A dictionary of the world made from its known factors, a latent per value of a shared factor; nothing is trained."""

from functools import lru_cache

import numpy as np
import torch
from sae_lens import TopKSAEConfig
from sae_lens.saes.topk_sae import TopKSAE

from cliplens import api
from cliplens.records import Provenance
from cliplens.sae import Dictionary
from cliplens.world import FACTORS, SHARED, captions, draw_scenes, render
from cliplens_hooks.models.world import pixels_to_tensor

SITES = ("vision.hook_embedding", "text.hook_embedding")
SCENES = 600


@lru_cache(maxsize=1)
def factor_dictionary(k: int = 6) -> Dictionary:
    """Rows are the least-squares effects of each value on embeddings, the mean of both modalities."""
    clip = api.load("world", device="cpu")
    scenes = draw_scenes(SCENES, seed=5_000_000)
    with torch.no_grad():
        image = clip.encode_image(pixels_to_tensor(render(scenes)), normalize=True)
        text = clip.encode_text(clip.tokenizer(captions(scenes)), normalize=True)  # type: ignore[misc]
    shown = np.concatenate([np.eye(len(FACTORS[f].values))[scenes[f]] for f in SHARED], axis=1)
    shown = torch.as_tensor(shown - shown.mean(0), dtype=torch.float32)
    rows = sum(torch.linalg.lstsq(shown, e - e.mean(0), driver="gelsd").solution for e in (image, text))
    rows = torch.nn.functional.normalize(rows, dim=1)
    sae = TopKSAE(TopKSAEConfig(d_in=64, d_sae=len(rows), k=k))
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(torch.linalg.pinv(rows))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    means = {"image": image.mean(0), "text": text.mean(0)}
    return Dictionary(sae.requires_grad_(False), means, Provenance(clip.identity, SITES, 64, "auto", True))  # type: ignore[arg-type]
