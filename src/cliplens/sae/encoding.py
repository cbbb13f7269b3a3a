"""Encode many rows with a SAELens SAE into sparse codes, in bounded memory."""

from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from sae_lens.saes.topk_sae import TopK
from torch import Tensor

from cliplens.records import SparseCodes

_DENSE_LIMIT = 2**23
"""Largest number of entries of a dense matrix of pre-activations; more rows are encoded in parts. A product of fewer
rows takes longer per row. The C library returns the memory of one that is so large to the system at once."""


def make_sparse(sae: "SAE[Any]") -> None:
    """Let a TopK dictionary return its codes as a sparse matrix: the same codes, without the zeros between them."""
    if isinstance(sae.activation_fn, TopK):
        sae.activation_fn = TopK(sae.activation_fn.k, use_sparse_activations=True)


@torch.no_grad()
def encoded(sae: "SAE[Any]", acts: Float[Tensor, "row d_in"]) -> SparseCodes:
    """Return the codes of rows, which may be on another device."""
    parts = acts.split(max(1, _DENSE_LIMIT // int(sae.cfg.d_sae)))
    with torch.sparse.check_sparse_tensor_invariants(enable=False):  # without it, torch warns about its default
        codes = [_sparse(sae.encode(part.to(sae.W_dec.device)).float()) for part in parts]
    return SparseCodes.joined(codes, int(sae.cfg.d_sae))


def _sparse(codes: Float[Tensor, "row d_sae"]) -> SparseCodes:
    return SparseCodes.from_sparse(codes) if codes.is_sparse else SparseCodes.from_dense(codes)
