"""Open a dictionary: a folder of cliplens or SAELens, or a checkpoint of another project."""

from pathlib import Path

import torch

from cliplens.sae.dictionary import Dictionary
from cliplens.sae.folder import is_saelens
from cliplens.sae.foreign import convert


def open_dictionary(path: Path | str, layout: str | None = None, *, device: torch.device | str = "cpu") -> Dictionary:
    """Open a folder that cliplens or SAELens wrote, or a checkpoint of another project (see `open_foreign`).

    Args:
        path: the folder, or the checkpoint file.
        layout: one of `layouts()`, if it cannot be recognised from the checkpoint.
        device: device of the weights.

    Raises:
        InputError: the path contains no dictionary of a known layout.
        UnsafeFileError: the file is a pickle with other objects than tensors.
    """
    if layout is None and is_saelens(Path(path)):
        return Dictionary.load(path, device=device)
    return open_foreign(path, layout).to(device)


def open_foreign(path: Path | str, layout: str | None = None, *, hook_name: str | None = None) -> Dictionary:
    """Open a dictionary of another project as a SAELens SAE; `save` writes it in SAELens' format.

    It reads raw activations, unless the loader of its authors normalised them outside the checkpoint.

    Args:
        path: the checkpoint file, or the folder that holds it and its config.
        layout: one of `layouts()`; None recognises it from config and tensors.
        hook_name: the hook of the dictionary, if the checkpoint does not contain it.

    Raises:
        UnknownNameError: no layout has that name.
        InputError: no layout recognises the checkpoint, or no SAELens architecture is equal to it.
        UnsafeFileError: the file contains other objects than tensors.
    """
    return Dictionary(convert(Path(path), layout, hook_name=hook_name))
