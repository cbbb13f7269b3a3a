"""A dictionary on disk: SAELens' own format, with the means beside it.

    sae/                       THE dictionary, as it was trained: reads centred activations
        cfg.json               SAELens' config; `metadata.cliplens` says model, hashes, sites, token, centring
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
from typing import Any

import torch
from sae_lens import SAE
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliplens.errors import DamagedError, InputError, UnsafeFileError
from cliplens.records import Provenance
from cliplens.sae.dictionary import MODALITIES, Dictionary
from cliplens.sae.folding import folded
from cliplens.sae.provenance import folded_mean_of, read_provenance, write_provenance
from cliplens.sites import Modality, Site

CONFIG, WEIGHTS, MEANS = "cfg.json", "sae_weights.safetensors", "means.safetensors"
_OURS = {CONFIG, WEIGHTS, MEANS, *MODALITIES, "sparsity.safetensors", "runner_cfg.json"}
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")


def save_dictionary(dictionary: Dictionary, folder: Path) -> Path:
    """Write all files into a new folder that takes the old one's place at the end; returns `folder`."""
    with _folder_written_whole(folder) as partial:
        _save_sae(dictionary.sae, partial, dictionary.provenance, None)
        for modality in _modalities(dictionary):
            _save_sae(dictionary.folded(modality), partial / modality, dictionary.provenance, modality)
        if dictionary.means is not None:
            save_file({m: mean.contiguous() for m, mean in dictionary.means.items()}, partial / MEANS)
    return folder


def load_dictionary(folder: Path, device: torch.device) -> Dictionary:
    """Open a folder `save_dictionary` wrote, or one SAELens wrote."""
    _refuse_other_folders(folder)
    sae, means = _opened(folder, device)
    modality = folded_mean_of(sae.cfg.metadata)
    if modality is not None:
        raise InputError(
            expected="the dictionary itself, which reads both modalities",
            found=f"{folder}, its copy that reads raw {modality} activations",
            fix=f"give {folder.parent}, or open this copy with SAE.load_from_disk",
        )
    return Dictionary(sae, means, read_provenance(sae.cfg.metadata))


def _opened(folder: Path, device: torch.device) -> "tuple[SAE[Any], dict[Modality, torch.Tensor] | None]":
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


def _modalities(dictionary: Dictionary) -> list[Modality]:
    """Those the dictionary is known to read: by its means, else by its sites."""
    if dictionary.means is not None:
        return [m for m in MODALITIES if m in dictionary.means]
    if dictionary.provenance is not None:
        read = {Site.parse(name).modality for name in dictionary.provenance.sites}
        return [m for m in MODALITIES if m in read]
    return []


def _save_sae(sae: "SAE[Any]", folder: Path, provenance: Provenance | None, of: Modality | None) -> None:
    own = folded(sae, None)  # so that writing metadata does not alter what the caller holds
    if provenance is not None:
        write_provenance(own.cfg.metadata, provenance, of)
    own.save_model(folder)


def is_dictionary(folder: Path) -> bool:
    """Whether the folder is one SAELens opens."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


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
def _folder_written_whole(folder: Path) -> Iterator[Path]:
    """A new folder to fill, put in place when the block ends well."""
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
