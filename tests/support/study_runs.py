"""A scored run of the embedded world for tests of studies: a random dictionary, so that nothing has to be trained."""

from pathlib import Path

import torch
from sae_lens import TopKSAEConfig
from sae_lens.saes.topk_sae import TopKSAE

from cliplens import api
from cliplens.records import Provenance
from cliplens.run import OpenedRun, run
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.settings import Settings

SITES = ("vision.hook_embedding", "text.hook_embedding")


def random_dictionary(d_sae: int = 48, k: int = 6, seed: int = 0) -> Dictionary:
    """A TopK dictionary of random unit rows over the final embeddings of the world's model."""
    clip = api.load("world")
    sae = TopKSAE(TopKSAEConfig(d_in=64, d_sae=d_sae, k=k))
    with torch.no_grad():
        rows = torch.randn(d_sae, 64, generator=torch.Generator().manual_seed(seed))
        sae.W_dec.copy_(torch.nn.functional.normalize(rows, dim=1))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return Dictionary(sae.requires_grad_(False), None, Provenance(clip.identity, SITES, 64, "auto", False))


def study_run(folder: Path, pairs: str = "world:60") -> OpenedRun:
    """A run of `pairs`, scored with a random dictionary."""
    sae = random_dictionary().save(folder / "dictionary")
    made = run(Settings(pairs=pairs, model="world", sae=str(sae), device="cpu"), folder / "run", until="name")
    return OpenedRun(RunFolder.open(made.path))
