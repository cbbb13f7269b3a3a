"""Convert a checkpoint of another project to a SAELens SAE."""

from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from cliplens.errors import CliplensError, InputError, unknown_name
from cliplens.sae.building import build_from_config
from cliplens.sae.foreign.clipscope import Clipscope
from cliplens.sae.foreign.dictionary_learning import DictionaryLearning
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec
from cliplens.sae.foreign.msae import MSAE
from cliplens.sae.foreign.openai import OpenAI
from cliplens.sae.foreign.overcomplete import Overcomplete
from cliplens.sae.foreign.patchsae import PatchSAE
from cliplens.sae.foreign.plain import Plain
from cliplens.sae.foreign.prisma import Prisma
from cliplens.sae.foreign.reading import read_checkpoint
from cliplens.sae.foreign.saev import Saev
from cliplens.sae.foreign.sem import Sem
from cliplens.sae.foreign.sparsify import Sparsify
from cliplens.sae.foreign.visaebench import ViSAEBench

_LAYOUTS: tuple[ForeignLayout, ...] = (
    Saev(),
    PatchSAE(),
    Prisma(),
    MSAE(),
    Clipscope(),
    OpenAI(),
    Sem(),
    Overcomplete(),
    Sparsify(),
    ViSAEBench(),
    DictionaryLearning(),
    Plain(),
)
"""Layouts in the order of trial: ViSAEBench before dictionary_learning, which has the same names; Plain last."""


def layouts() -> tuple[str, ...]:
    """Return the names of the layouts that can be opened.

    >>> "vit-prisma" in layouts()
    True
    """
    return tuple(sorted(layout.name for layout in _LAYOUTS))


def convert(path: Path, layout: str | None = None, *, hook_name: str | None = None) -> "SAE[Any]":
    """Convert a checkpoint of another project to an equal SAELens SAE.

    Args:
        path: the checkpoint file, or the folder that holds it and its config.
        layout: one of `layouts()`; None recognises it from config and tensors.
        hook_name: the hook of the dictionary, if the checkpoint does not contain it.

    Raises:
        UnknownNameError: no layout has that name.
        InputError: no layout recognises the checkpoint, or no SAELens architecture is equal to it.
        UnsafeFileError: the file contains other objects than tensors.
        DamagedError: the file or its configuration is truncated.
    """
    if layout is not None and layout not in layouts():
        raise unknown_name("layout", layout, layouts())
    checkpoint = read_checkpoint(path)
    chosen = _choose_layout(checkpoint, layout)
    checkpoint.read.clear()
    try:
        spec = chosen.to_spec(checkpoint)
        sae = _build(spec)
    except CliplensError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            expected=f"a checkpoint in the {chosen.name} layout",
            found=f"{checkpoint.path}, which cannot be read as one ({type(error).__name__}: {error})",
            fix="pass its layout with layout= (--layout on the command line)",
        ) from error
    metadata = sae.cfg.metadata
    metadata.hook_name, metadata.model_name = hook_name or spec.hook_name, spec.model_name
    metadata.converted_from = chosen.name
    return sae


def _choose_layout(checkpoint: Checkpoint, name: str | None) -> ForeignLayout:
    for candidate in _LAYOUTS:
        if name == candidate.name or (name is None and candidate.recognises(checkpoint)):
            return candidate
    raise InputError(
        expected=f"a checkpoint of {', '.join(layouts())}",
        found=f"{checkpoint.path} with {', '.join(sorted(map(str, checkpoint.state))[:8]) or 'nothing in it'}",
        fix="pass its layout with layout= (--layout on the command line), or save it again with SAELens",
    )


def _build(spec: SaeSpec) -> "SAE[Any]":
    tensors = {name: _own(tensor) for name, tensor in spec.tensors.items()}
    d_sae, d_in = tensors["W_dec"].shape
    base = {"architecture": spec.architecture, "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu"}
    return build_from_config({**base, **spec.config, "metadata": {}}, tensors)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32).contiguous().clone()
