"""Checkpoints read as tensors: safetensors, or a torch file opened with `weights_only`.

Some projects pickle a config object beside the weights. `weights_only` would refuse those; the few known ones are taken
as plain names and values, and nothing of theirs is run. Every other object is refused.
"""

import io
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from cliplens.errors import DamagedError, InputError, UnsafeFileError
from cliplens.sae.foreign.layout import Checkpoint

_WEIGHTS = ("ae.pt", "weights.pt", "weights.safetensors", "model.safetensors", "sae.pt")
_CONFIG_CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.configs.VisionModelSAERunnerConfig",
    "src.sae_training.config.ViTSAERunnerConfig",
    "src.sae_training.config.Config",
    "sae_training.config.ViTSAERunnerConfig",
    "sae_training.config.Config",
)
_ZIP, _JSON = b"PK", b"{"


class Values:
    """Stands for a pickled config: what its authors' class held, and none of its behaviour."""


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a checkpoint file, or of a folder that holds one, with the config beside them.

    Raises:
        InputError: there is no checkpoint.
        UnsafeFileError: the file holds objects beside tensors.
        DamagedError: the file is cut.
    """
    file = _file_in(path) if path.is_dir() else path
    if not file.is_file():
        raise InputError(expected="a checkpoint file", found=f"no file {file}", fix="check the path")
    if file.suffix == ".safetensors":
        return Checkpoint(file, load_file(file), _config_beside(file))
    with file.open("rb") as opened:
        header = json.loads(opened.readline()) if opened.peek(1)[:1] == _JSON else {}
        content = _tensors(opened.read(), file)
    return Checkpoint(file, *_apart(content, {**_config_beside(file), **header}))


def _file_in(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(p for p in folder.iterdir() if p.suffix in (".pt", ".pth", ".safetensors"))
    if len(candidates) != 1:
        raise InputError(
            expected="a folder with one checkpoint",
            found=f"{len(candidates)} in {folder}",
            fix="give the file itself",
        )
    return candidates[0]


def _config_beside(file: Path) -> Mapping[str, Any]:
    beside = file.with_name("config.json")
    return json.loads(beside.read_text()) if beside.is_file() else {}


def _tensors(content: bytes, file: Path) -> Mapping[str, Any]:
    scalar = np.float32(0).__reduce__()[0]  # how numpy pickles a number
    numbers = [scalar, np.dtype, *(type(np.dtype(d)) for d in ("f4", "f8", "i4", "i8"))]
    allowed: list[Any] = [*numbers, *((Values, name) for name in _CONFIG_CLASSES)]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused or read all the same
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            expected=f"nothing but tensors, numbers and known configs in {file}",
            found=str(error).strip().splitlines()[-1],
            fix="save its state_dict() alone where it was made",
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise DamagedError(
            expected=f"a torch checkpoint in {file}", found=str(error).splitlines()[0], fix="download it again"
        ) from error
    if not isinstance(loaded, Mapping):
        raise InputError(
            expected="a checkpoint with named tensors", found=type(loaded).__name__, fix="save a state_dict()"
        )
    return loaded


def _apart(content: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A config that was pickled within the checkpoint joins the one beside it."""
    inner = content.get("cfg")
    if inner is None:
        return content, config
    values = inner if isinstance(inner, Mapping) else vars(inner)
    return {k: v for k, v in content.items() if k != "cfg"}, {**config, **values}
