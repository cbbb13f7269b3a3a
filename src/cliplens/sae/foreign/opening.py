"""A checkpoint of another project, as a dictionary."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from cliplens.errors import InputError, unknown_name
from cliplens.sae.dictionary import Dictionary
from cliplens.sae.foreign.clipscope import Clipscope
from cliplens.sae.foreign.dictionary_learning import DictionaryLearning
from cliplens.sae.foreign.layout import Found, Layout, Meaning
from cliplens.sae.foreign.msae import MSAE
from cliplens.sae.foreign.patchsae import PatchSAE
from cliplens.sae.foreign.prisma import Prisma
from cliplens.sae.foreign.reading import read_checkpoint
from cliplens.sae.foreign.saev import Saev
from cliplens.sae.making import made_from_dict

_LAYOUTS: tuple[Layout, ...] = (Saev(), PatchSAE(), Prisma(), DictionaryLearning(), MSAE(), Clipscope())


def layouts() -> tuple[str, ...]:
    """The layouts that can be opened."""
    return tuple(sorted(layout.name for layout in _LAYOUTS))


def open_foreign(path: Path | str, layout: str | None = None, *, hook_name: str | None = None) -> Dictionary:
    """A dictionary another project trained; `save` writes it in SAELens' format.

    It reads activations as its authors fed them: raw, unless their loader normalised them outside the checkpoint.

    Args:
        path: the checkpoint file, or the folder that holds it and its config.json.
        layout: one of `layouts()`; None tells it from the names of the tensors.
        hook_name: where it reads, if the checkpoint does not say.

    Raises:
        UnknownNameError: no such layout.
        InputError: no layout knows the checkpoint, or no SAELens architecture equals it.
        UnsafeFileError: the file holds objects beside tensors.
    """
    found = read_checkpoint(Path(path))
    chosen = _chosen(found, layout)
    meaning = chosen.meaning(found)
    sae = _made(meaning)
    metadata = sae.cfg.metadata
    metadata.hook_name, metadata.model_name = hook_name or meaning.hook_name, meaning.model_name
    metadata.converted_from = chosen.name
    return Dictionary(sae)


def _chosen(found: Found, layout: str | None) -> Layout:
    if layout is not None and layout not in layouts():
        raise unknown_name("layout", layout, layouts())
    for candidate in _LAYOUTS:
        if layout == candidate.name or (layout is None and candidate.knows(found)):
            return candidate
    raise InputError(
        expected=f"a checkpoint of {', '.join(layouts())}",
        found=f"{found.path} with {', '.join(sorted(map(str, found.content))[:8])}",
        fix="name its layout with layout=, or save it with SAELens where it was made",
    )


def _made(meaning: Meaning) -> "SAE[Any]":
    tensors = {name: _own(tensor) for name, tensor in meaning.tensors.items()}
    d_sae, d_in = tensors["W_dec"].shape
    described = {
        "architecture": meaning.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
    }
    return made_from_dict({**described, **meaning.config, "metadata": {}}, tensors)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous().clone()
