"""A dictionary, wherever it was made."""

from pathlib import Path

import torch

from cliplens.sae.dictionary import Dictionary
from cliplens.sae.folder import is_dictionary
from cliplens.sae.foreign import open_foreign


def open_dictionary(path: Path | str, *, device: torch.device | str = "cpu") -> Dictionary:
    """Open a folder cliplens or SAELens wrote, or else a checkpoint of another project (`open_foreign`).

    Raises:
        InputError: there is nothing that any of them knows.
        UnsafeFileError: a pickle that is more than tensors.
    """
    if is_dictionary(Path(path)):
        return Dictionary.load(path, device=device)
    return open_foreign(path).to(device)
