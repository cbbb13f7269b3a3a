"""Compute the identity of a dictionary, with which saved edits are checked."""

import hashlib
from typing import Any

import torch

from cliplens.errors import MismatchError
from cliplens.sae import Dictionary


def dictionary_sha256(dictionary: Dictionary) -> str:
    """Return the SHA-256 of the names, shapes and values of the dictionary's tensors and modality means."""
    digest = hashlib.sha256()
    tensors = {f"sae.{name}": t for name, t in dictionary.sae.state_dict().items()}
    tensors |= {f"mean.{name}": t for name, t in (dictionary.means or {}).items()}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def identity_of(dictionary: Dictionary) -> dict[str, Any]:
    """Return the hash, sizes and origin of the dictionary, as saved edits record them."""
    source = dictionary.provenance
    return {
        "sha256": dictionary_sha256(dictionary),
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "model": None if source is None else source.model.name,
        "sites": [] if source is None else list(source.sites),
    }


def check_same(wanted: dict[str, Any], dictionary: Dictionary) -> None:
    """Check that edits were made for this dictionary, because latents of another one have other meanings.

    Raises:
        MismatchError: the edits were made for another dictionary.
    """
    found = identity_of(dictionary)
    if wanted.get("sha256") != found["sha256"]:
        raise MismatchError(
            expected=f"the dictionary that the edits were made for, {_described(wanted)}",
            found=_described(found),
            fix="use that dictionary, or find the latents of this one by name and make new edits",
        )


def _described(identity: dict[str, Any]) -> str:
    where = f", {identity['model']}" if identity.get("model") else ""
    return f"{str(identity.get('sha256'))[:12]} ({identity.get('d_in')} -> {identity.get('d_sae')}{where})"
