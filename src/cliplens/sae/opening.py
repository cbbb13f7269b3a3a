"""Open a dictionary of any origin: a cliplens or SAELens folder, or a checkpoint of another project."""

from pathlib import Path

import torch

from cliplens.sae.dictionary import Dictionary
from cliplens.sae.folder import is_saelens
from cliplens.sae.foreign import convert


def open_dictionary(path: Path | str, layout: str | None = None, *, device: torch.device | str = "cpu") -> Dictionary:
    """Open a folder that cliplens or SAELens wrote, else a checkpoint of another project (see `open_foreign`).

    Args:
        path: the folder, or the checkpoint file.
        layout: one of `layouts()`, for a checkpoint that does not say what it is.
        device: where its weights go.

    Raises:
        InputError: the path holds no dictionary of a known layout.
        UnsafeFileError: the file is a pickle that holds more than tensors.
    """
    if layout is None and is_saelens(Path(path)):
        return Dictionary.load(path, device=device)
    return open_foreign(path, layout).to(device)


def open_foreign(path: Path | str, layout: str | None = None, *, hook_name: str | None = None) -> Dictionary:
    """Open a dictionary another project trained, as a SAELens SAE; `save` writes it in SAELens' format.

    It reads activations as its authors fed them: raw, unless their loader normalised them outside the checkpoint.

    Args:
        path: the checkpoint file, or the folder that holds it and its config.
        layout: one of `layouts()`; None recognises it from config and tensors.
        hook_name: the hook it reads, where the checkpoint does not say.

    Raises:
        UnknownNameError: there is no layout of that name.
        InputError: no layout recognises the checkpoint, or no SAELens architecture equals it.
        UnsafeFileError: the file holds objects beside tensors.
    """
    return Dictionary(convert(Path(path), layout, hook_name=hook_name))
