"""Read checkpoints as tensors: safetensors, or a torch file opened with `weights_only`.

Some projects pickle a config object with the weights, which `weights_only` does not allow. Known config classes are
read as plain names and values, without running their code. Any other object is an error.
"""

import io
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from cliplens.errors import CliplensError, DamagedError, InputError, UnsafeFileError
from cliplens.sae.config_file import read_config
from cliplens.sae.foreign.activation import names_activation
from cliplens.sae.foreign.layout import Checkpoint

_WEIGHTS = (
    "ae.pt",
    "weights.pt",
    "weights.safetensors",
    "model.safetensors",
    "sae.safetensors",
    "sae_weights.safetensors",
    "sae.pt",
    "state_dict.pth",
)
_SUFFIXES = (".pt", ".pth", ".safetensors", ".npz")
_INDEX = ".safetensors.index.json"
_BESIDE_WEIGHTS = ("sparsity", "optimizer", "trainer_state", "means", "scheduler")
"""Parts of names of files that are stored with weights and contain none."""
_CONFIGS = ("config.json", "cfg.json", "config.yaml", "config.yml")
_CONFIG_SUFFIXES = (".json", ".yaml", ".yml")
_INNER_CONFIGS = ("cfg", "config", "args", "hparams", "hyper_parameters")
_DECIDING = ("activation", "activation_fn", "activation_fn_str", "architecture", "sae_type", "k", "d_in", "d_sae")
"""Entries on which two configurations of one checkpoint must agree."""
_CONFIG_CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.configs.VisionModelSAERunnerConfig",
    "src.sae_training.config.ViTSAERunnerConfig",
    "src.sae_training.config.Config",
    "sae_training.config.ViTSAERunnerConfig",
    "sae_training.config.Config",
)
_JSON = b"{"
_OBJECT = re.compile(r"(?:GLOBAL|class) ([\w.]+)")


class Values:
    """A pickled config: the values of the original class, without its code."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors of a checkpoint file, or of a folder that holds one, with its configuration.

    Raises:
        InputError: there is no checkpoint or more than one, or two configurations contradict each other.
        UnsafeFileError: the file holds objects beside tensors.
        DamagedError: the file or its configuration is cut.
    """
    file = _weights_in(path) if path.is_dir() else path
    if not file.is_file():
        raise InputError(expected="a checkpoint file", found=f"no file {file}", fix="check the path")
    beside = _config_beside(file)
    if file.name.endswith(_INDEX):
        return Checkpoint(file, _shards(file), beside)
    if file.suffix == ".safetensors":
        return Checkpoint(file, _safetensors(file), beside)
    if file.suffix in (".npz", ".npy"):
        return Checkpoint(file, _arrays(file), beside)
    header, content = _torch_file(file)
    return Checkpoint(file, *_apart(content, _joined(beside, header, file), file))


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    indices = sorted(p for p in folder.iterdir() if p.name.endswith(_INDEX))
    candidates = indices if len(indices) == 1 else _checkpoints_in(folder)
    if len(candidates) != 1:
        listed = ", ".join(p.name for p in candidates[:4]) or "none"
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and _checkpoints_in(p))
        raise InputError(
            expected="a folder with one checkpoint",
            found=f"{len(candidates)} in {folder} ({listed})",
            fix="pass the path of one file" if not inner else f"pass one of its folders, for example {inner[0]}",
        )
    return candidates[0]


def _checkpoints_in(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix in _SUFFIXES and not any(part in p.name for part in _BESIDE_WEIGHTS)
    )


def _config_beside(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _CONFIGS:
        if file.with_name(name).is_file():
            found = _joined(read_config(file.with_name(name)), found, file)
    return found or _config_of_another_name(file)


def _config_of_another_name(file: Path) -> dict[str, Any]:
    """Return a configuration under a name of its authors' own: a file beside the weights that names an activation.

    Beside several checkpoints it has to bear the name of this one.
    """
    own = [f"{file.stem}{ending}" for ending in ("", "_cfg", "_config", ".cfg", ".config")]
    alone = len(_checkpoints_in(file.parent)) == 1
    found: dict[str, Any] = {}
    for path in sorted(file.parent.iterdir()):
        if path.suffix not in _CONFIG_SUFFIXES or path.name.endswith(_INDEX) or not (alone or path.stem in own):
            continue
        try:
            content = read_config(path)
        except CliplensError:
            continue  # it is somebody else's file
        if path.stem in own or names_activation(content):
            found = _joined(content, found, file)
    return found


def _shards(index: Path) -> dict[str, Any]:
    """Return the tensors of several safetensors files that an index lists."""
    listed = read_config(index).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, Mapping) else []
    missing = [name for name in names if "/" in name or not index.with_name(name).is_file()]
    if missing or not names:
        raise InputError(
            expected=f"the files that {index} lists",
            found=f"no {missing[0]}" if missing else "none listed",
            fix="download all of them",
        )
    return {name: tensor for shard in names for name, tensor in _safetensors(index.with_name(shard)).items()}


_UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, OSError, TypeError, AttributeError, EOFError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def _arrays(file: Path) -> dict[str, Any]:
    """Return the arrays of an npz file as tensors."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except _UNREADABLE as error:
        raise InputError(
            expected=f"arrays with names in {file}, as numpy.savez writes them",
            found="one array without a name" if file.suffix == ".npy" else f"{type(error).__name__}: {error}",
            fix="save W_enc, b_enc, W_dec and b_dec with numpy.savez or as safetensors",
        ) from error


def _joined(first: Mapping[str, Any], second: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Join two configurations; entries of `second` take precedence where they may differ."""
    for key in _DECIDING:
        if key in first and key in second and first[key] != second[key]:
            raise InputError(
                expected=f"one configuration of {file}",
                found=f"{key}={first[key]!r} in one file and {key}={second[key]!r} in another",
                fix="keep the configuration that the weights were saved with",
            )
    return {**first, **second}


def _safetensors(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            expected=f"safetensors in {file}", found=str(error).splitlines()[0], fix="copy or download it again"
        ) from error


def _torch_file(file: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the line of JSON before the tensors, which saev writes, and the content."""
    with file.open("rb") as opened:
        try:
            header = json.loads(opened.readline()) if opened.peek(1)[:1] == _JSON else {}
        except ValueError as error:
            raise DamagedError(
                expected=f"a line of JSON at the beginning of {file}", found=str(error), fix="download it again"
            ) from error
        return header, _tensors(opened.read(), file)


def _tensors(content: bytes, file: Path) -> Mapping[str, Any]:
    scalar = np.float32(0).__reduce__()[0]  # numpy pickles numbers with these functions.
    numbers = [scalar, np.dtype, *(type(np.dtype(d)) for d in ("f4", "f8", "i4", "i8"))]
    allowed: list[Any] = [*numbers, *((Values, name) for name in _CONFIG_CLASSES)]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused or read all the same
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            expected=f"nothing but tensors, numbers and known configs in {file}",
            found=_object_in(str(error)),
            fix="save only its state_dict() on the original machine",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise DamagedError(
            expected=f"a torch checkpoint in {file}",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            fix="download it again",
        ) from error
    if not isinstance(loaded, Mapping):
        raise InputError(
            expected="a checkpoint with named tensors", found=type(loaded).__name__, fix="save a state_dict()"
        )
    return loaded


def _object_in(words: str) -> str:
    """Return which object torch refused to load."""
    named = _OBJECT.search(words)
    return f"an object of {named[1]}" if named else "something that is no tensor"


def _apart(
    content: Mapping[str, Any], config: Mapping[str, Any], file: Path
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Join a configuration within the checkpoint with the one next to it."""
    for name in _INNER_CONFIGS:
        inner = content.get(name)
        if isinstance(inner, Mapping) or (inner is not None and hasattr(inner, "__dict__") and name == "cfg"):
            values = inner if isinstance(inner, Mapping) else vars(inner)
            if any(isinstance(value, torch.Tensor) and value.ndim == 2 for value in values.values()):
                continue
            config = _joined(config, values, file)
            content = {k: v for k, v in content.items() if k != name}
    return content, config
