"""Read and write a dictionary folder: SAELens' format, with the means of the modalities.

    sae/                       the dictionary as trained; it reads centred activations
        cfg.json               SAELens' config; `metadata.cliplens` holds model, hashes, sites, token, centring
        sae_weights.safetensors
        means.safetensors      image, text: the mean of each modality; absent when trained without centring
        sha256.json            the hash of each of these files
        image/  text/          the same dictionary with the mean of the modality folded in; it reads raw activations

Each folder opens with stock `SAE.load_from_disk`.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cliplens.errors import CliplensError, DamagedError, InputError, UnsafeFileError, unknown_name
from cliplens.files import atomic_folder
from cliplens.records import Provenance
from cliplens.sae.config_file import read_config
from cliplens.sae.folding import Means, folded, folded_for
from cliplens.sae.hashes import HASHES, check_hashes, write_hashes
from cliplens.sae.provenance import folded_mean_of, read_provenance, write_provenance
from cliplens.sae.scaler import fold_scaler
from cliplens.sites import MODALITIES, Modality, Site

CONFIG, WEIGHTS, MEANS = "cfg.json", "sae_weights.safetensors", "means.safetensors"
_OURS = {CONFIG, WEIGHTS, MEANS, HASHES, *MODALITIES, "sparsity.safetensors", "runner_cfg.json"}
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")

log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """The content of a dictionary folder."""

    sae: "SAE[Any]"
    means: Means | None
    provenance: Provenance | None


def save_folder(stored: Stored, folder: Path) -> Path:
    """Write all files atomically, replacing an older dictionary; return `folder`.

    Raises:
        InputError: `folder` is a file, or contains other files than those of a dictionary.
    """
    sae, means, provenance = stored
    _refuse_to_replace(folder)
    with atomic_folder(folder) as partial:
        _save_sae(sae, partial, provenance, None)
        for modality in _modalities(means, provenance):
            _save_sae(folded_for(sae, means, modality), partial / modality, provenance, modality)
            write_hashes(partial / modality)
        if means is not None:
            save_file({m: mean.contiguous() for m, mean in means.items()}, partial / MEANS)
        write_hashes(partial)
    return folder


def load_folder(folder: Path, device: torch.device) -> Stored:
    """Check the hashes of a folder that `save_folder` or SAELens wrote, and read it.

    Raises:
        InputError: it contains no dictionary, or only the copy of one modality; the means of a centred dictionary are
            missing; or its configuration contradicts its weights.
        UnsafeFileError: it contains a pickle instead of tensors.
        DamagedError: a file was altered, is truncated or cannot be read.
    """
    _refuse_other_folders(folder)
    hashed = check_hashes(folder)
    sae, means = _read(folder, device)
    modality = folded_mean_of(sae.cfg.metadata)
    if modality is not None:
        raise InputError(
            expected="the dictionary itself, which reads both modalities",
            found=f"{folder}, its copy that reads raw {modality} activations",
            fix=f"pass {folder.parent}, or open this copy with SAE.load_from_disk",
        )
    provenance = read_provenance(sae.cfg.metadata)
    if provenance is not None:
        _check_means(means, provenance, folder)
        if not hashed:
            log.warning("%s has no %s, because an earlier version saved it: damage is not detected", folder, HASHES)
    return Stored(sae, means, provenance)


def verify_folder(folder: Path) -> None:
    """Check that every file of a dictionary folder and of its copies is present, intact and readable.

    Raises:
        CliplensError: a file is missing or damaged; the message names it.
    """
    load_folder(folder, torch.device("cpu"))
    for copy in (folder / modality for modality in MODALITIES):
        if copy.is_dir():
            check_hashes(copy)
            _read(copy, torch.device("cpu"))


def is_dictionary(folder: Path) -> bool:
    """Return whether a folder contains the files that SAELens opens."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def is_saelens(folder: Path) -> bool:
    """Return whether a folder contains the files that SAELens opens, with the fields that SAELens writes.

    Raises:
        DamagedError: its configuration is truncated.
    """
    return is_dictionary(folder) and {"d_in", "d_sae", "dtype"} <= read_config(folder / CONFIG).keys()


def _read(folder: Path, device: torch.device) -> "tuple[SAE[Any], dict[Modality, torch.Tensor] | None]":
    config = read_config(folder / CONFIG)
    architecture = config.get("architecture", "standard")
    if not isinstance(architecture, str) or architecture not in SAE_CLASS_REGISTRY:
        raise unknown_name("dictionary architecture", str(architecture), SAE_CLASS_REGISTRY)
    try:
        sae = SAE.load_from_disk(folder, device=str(device))
        path = folder / MEANS
        means = load_file(path) if path.exists() else None
    except CliplensError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, AssertionError) as error:
        raise DamagedError(
            expected=f"a dictionary in SAELens' format in {folder}",
            found=f"{type(error).__name__}: {error}",
            fix="save it again, or pass another folder",
        ) from error
    _check_activation(config, sae)
    fold_scaler(sae, folder)
    _check_finite({**sae.state_dict(), **{f"the {m} mean": mean for m, mean in (means or {}).items()}}, folder)
    known = None if means is None else {m: means[m] for m in MODALITIES if m in means}
    return sae.requires_grad_(False), known


def _check_activation(config: dict[str, Any], sae: "SAE[Any]") -> None:
    """Check that the activation in an early SAELens configuration is the one that SAELens uses for it."""
    word = str(config.get("activation_fn_str") or config.get("activation_fn") or "relu").casefold()
    architecture = sae.cfg.architecture()
    if word not in ("relu", architecture):
        raise InputError(
            expected=f"the activation relu, or {architecture} as SAELens opens this dictionary",
            found=f"the activation {word!r} in {CONFIG}",
            fix="open it with the version of SAELens that wrote it",
        )
    k = getattr(sae.cfg, "k", None)
    if k is not None and not 1 <= k <= sae.cfg.d_sae:
        raise InputError(
            expected=f"k from 1 to {sae.cfg.d_sae}, the number of latents", found=f"k={k}", fix=f"correct {CONFIG}"
        )


def _check_finite(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for name, tensor in tensors.items():
        wrong = tensor.isnan() if name == "threshold" else ~tensor.isfinite()
        if wrong.any():
            raise InputError(
                expected=f"finite numbers in {name} of {folder}",
                found=f"{int(wrong.sum())} that are nan or infinite",
                fix="pass a dictionary from before the training diverged",
            )


def _check_means(means: Means | None, provenance: Provenance, folder: Path) -> None:
    if not provenance.centred:
        return
    read = sorted({Site.parse(name).modality for name in provenance.sites})
    lost = [m for m in read if m not in (means or {})]
    if lost:
        raise InputError(
            expected=f"{MEANS} with the {' and '.join(lost)} mean beside a dictionary that reads centred activations",
            found=f"none in {folder}" if means is None else f"only {', '.join(means)}",
            fix=f"copy {MEANS} from the original folder; without the means, codes are wrong",
        )


def _modalities(means: Means | None, provenance: Provenance | None) -> list[Modality]:
    """Return the modalities of a dictionary, from its means or else from its sites."""
    if means is not None:
        return [m for m in MODALITIES if m in means]
    if provenance is not None:
        read = {Site.parse(name).modality for name in provenance.sites}
        return [m for m in MODALITIES if m in read]
    return []


def _save_sae(sae: "SAE[Any]", folder: Path, provenance: Provenance | None, of: Modality | None) -> None:
    own = folded(sae, None)  # Writing metadata must not alter the caller's object.
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
            fix="convert it on the original machine, with sae.save_model(folder) or cliplens.sae.open_foreign",
        )
    raise InputError(
        expected=f"a folder with {CONFIG} and {WEIGHTS}",
        found=f"{folder}, which {'has not both' if folder.is_dir() else 'is no folder'}",
        fix="pass the sae/ folder of a run, or any folder that SAE.load_from_disk opens",
    )


def _refuse_to_replace(folder: Path) -> None:
    others = sorted(p.name for p in folder.iterdir() if p.name not in _OURS) if folder.is_dir() else []
    if others or folder.is_file():
        raise InputError(
            expected="a new folder, or one that contains only a dictionary to replace",
            found=f"{folder}, which {'is a file' if folder.is_file() else f'holds {others[0]}'}",
            fix="pass a folder for this dictionary only",
        )
