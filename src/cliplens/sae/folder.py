"""Read and write a dictionary folder: SAELens' own format, with the modality means beside it.

    sae/                       THE dictionary, as it was trained: reads centred activations
        cfg.json               SAELens' config; `metadata.cliplens` holds model, hashes, sites, token, centring
        sae_weights.safetensors
        means.safetensors      image, text: the mean of each modality; absent when trained without centring
        image/  text/          the same dictionary with that modality's mean folded in: reads raw activations

Each folder opens with stock `SAE.load_from_disk`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliplens.errors import DamagedError, InputError, UnsafeFileError
from cliplens.records import Provenance
from cliplens.sae.folding import Means, folded, folded_for
from cliplens.sae.provenance import folded_mean_of, read_provenance, write_provenance
from cliplens.sites import MODALITIES, Modality, Site

CONFIG, WEIGHTS, MEANS = "cfg.json", "sae_weights.safetensors", "means.safetensors"
_OURS = {CONFIG, WEIGHTS, MEANS, *MODALITIES, "sparsity.safetensors", "runner_cfg.json"}
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


class Stored(NamedTuple):
    """The content of a dictionary folder."""

    sae: "SAE[Any]"
    means: Means | None
    provenance: Provenance | None


def save_folder(stored: Stored, folder: Path) -> Path:
    """Write all files into a new folder that replaces the old one at the end; return `folder`.

    Raises:
        InputError: `folder` is a file, or holds files that are no part of a dictionary.
    """
    sae, means, provenance = stored
    with _atomic_folder(folder) as partial:
        _save_sae(sae, partial, provenance, None)
        for modality in _modalities(means, provenance):
            _save_sae(folded_for(sae, means, modality), partial / modality, provenance, modality)
        if means is not None:
            save_file({m: mean.contiguous() for m, mean in means.items()}, partial / MEANS)
    return folder


def load_folder(folder: Path, device: torch.device) -> Stored:
    """Read a folder that `save_folder` or SAELens wrote.

    Raises:
        InputError: there is no dictionary in it, or only the copy of one modality.
        UnsafeFileError: it holds a pickle instead of tensors.
        DamagedError: a file in it cannot be read.
    """
    _refuse_other_folders(folder)
    sae, means = _read(folder, device)
    modality = folded_mean_of(sae.cfg.metadata)
    if modality is not None:
        raise InputError(
            expected="the dictionary itself, which reads both modalities",
            found=f"{folder}, its copy that reads raw {modality} activations",
            fix=f"give {folder.parent}, or open this copy with SAE.load_from_disk",
        )
    return Stored(sae, means, read_provenance(sae.cfg.metadata))


def is_dictionary(folder: Path) -> bool:
    """Return whether a folder holds the files SAELens opens."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _read(folder: Path, device: torch.device) -> "tuple[SAE[Any], dict[Modality, torch.Tensor] | None]":
    try:
        sae = SAE.load_from_disk(folder, device=str(device))
        path = folder / MEANS
        means = load_file(path) if path.exists() else None
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(
            expected=f"a dictionary in SAELens' format in {folder}",
            found=f"{type(error).__name__}: {error}",
            fix="save it again, or give another folder",
        ) from error
    known = None if means is None else {m: means[m] for m in MODALITIES if m in means}
    return sae.requires_grad_(False), known


def _modalities(means: Means | None, provenance: Provenance | None) -> list[Modality]:
    """Return the modalities a dictionary is known to read: by its means, else by its sites."""
    if means is not None:
        return [m for m in MODALITIES if m in means]
    if provenance is not None:
        read = {Site.parse(name).modality for name in provenance.sites}
        return [m for m in MODALITIES if m in read]
    return []


def _save_sae(sae: "SAE[Any]", folder: Path, provenance: Provenance | None, of: Modality | None) -> None:
    own = folded(sae, None)  # so that writing metadata does not alter the caller's object
    if provenance is not None:
        write_provenance(own.cfg.metadata, provenance, of)
    own.save_model(folder)


def _refuse_other_folders(folder: Path) -> None:
    if is_dictionary(folder):
        return
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES) if folder.is_dir() else []
    if pickles or folder.suffix in PICKLES:
        raise UnsafeFileError(
            expected=f"a dictionary as tensors, {CONFIG} and {WEIGHTS}",
            found=f"a pickle, {pickles[0] if pickles else folder.name}, in {folder if pickles else folder.parent}",
            fix="convert it where it was made, with sae.save_model(folder) or cliplens.sae.open_foreign",
        )
    raise InputError(
        expected=f"a folder with {CONFIG} and {WEIGHTS}",
        found=f"{folder}, which {'has not both' if folder.is_dir() else 'is no folder'}",
        fix="give the sae/ of a run, or any folder SAE.load_from_disk opens",
    )


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces `folder` when the block ends without an error."""
    _refuse_to_replace(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_to_replace(folder: Path) -> None:
    others = sorted(p.name for p in folder.iterdir() if p.name not in _OURS) if folder.is_dir() else []
    if others or folder.is_file():
        raise InputError(
            expected="a new folder, or one that holds nothing but a dictionary to replace",
            found=f"{folder}, which {'is a file' if folder.is_file() else f'holds {others[0]}'}",
            fix="give the dictionary a folder of its own",
        )
