"""Save and restore a training run: weights, optimiser, counters, random generators and the provider's position.

SAELens' checkpoints contain neither the generators nor the position in the data, so a resumed run differs from an
uninterrupted one; and their trainer state is a pickle. Each checkpoint here is one safetensors file, written
atomically. Other values and a hash of the tensors are stored as JSON in its header. A resumed run equals an
uninterrupted one, bit for bit.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cliplens.errors import MismatchError
from cliplens.files import atomic_write

log = logging.getLogger(__name__)
_PREFIX, _SUFFIX = "training-", ".safetensors"


def save_state(folder: Path, samples: int, state: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Write the checkpoint after `samples` rows, then remove the older ones.

    Args:
        folder: the checkpoint folder.
        samples: rows trained on so far.
        state: nested mappings and lists of tensors and JSON values.
        asked: the options of the training; a resumed run must have the same.

    Raises:
        OSError, SafetensorError: the file cannot be written; older checkpoints are kept.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _flatten(dict(state), "", tensors)
    header = {
        "state": json.dumps(skeleton),
        "asked": json.dumps(_plain(asked)),
        "sha256": _sha256(tensors),
    }
    path = folder / f"{_PREFIX}{samples:012d}{_SUFFIX}"
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=header)
    for old in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        if old.name < path.name:
            with suppress(OSError):
                old.unlink()


def resume_point(folder: Path) -> int:
    """Return the number of rows at the newest readable checkpoint; 0 without one."""
    for path in _newest_first(folder):
        try:
            with safe_open(path, "pt") as file:
                json.loads((file.metadata() or {})["state"])
            return _samples(path)
        except (SafetensorError, OSError, ValueError, KeyError):
            continue
    return 0


def load_state(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of the newest intact checkpoint; None without one.

    A damaged checkpoint is skipped, with a warning in the log.

    Raises:
        MismatchError: the checkpoint belongs to a training with other options.
    """
    for path in _newest_first(folder):
        try:
            header, tensors = _read(path)
            skeleton, then = json.loads(header["state"]), json.loads(header["asked"])
            state = _restore(skeleton, tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the checkpoint %s is damaged and skipped (%s)", path, error)
            continue
        _check_asked(then, _plain(asked), path)
        assert isinstance(state, dict)
        return state
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove every checkpoint in the folder, after the training they belong to is done."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            path.unlink()


def _newest_first(folder: Path) -> list[Path]:
    found = [p for p in folder.glob(f"{_PREFIX}*{_SUFFIX}") if p.name[len(_PREFIX) : -len(_SUFFIX)].isdecimal()]
    return sorted(found, reverse=True)


def _samples(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("sha256", "") not in ("", _sha256(tensors)):
        raise ValueError("its tensors are not those that were written")
    return header, tensors


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _check_asked(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise MismatchError(
                expected=f"the training that {path} belongs to, with {name}={then.get(name)!r}",
                found=f"{name}={now.get(name)!r}",
                fix="pass the same options, or start from the beginning with resume=False or another folder",
            )


def _flatten(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """Return JSON that keeps tuples, keys that are no strings, and the place of each tensor; collect the tensors."""
    if isinstance(value, Tensor):
        tensors[at] = value.detach().cpu().clone().contiguous()
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"dict": [[k, _flatten(v, f"{at}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_flatten(v, f"{at}/{i}", tensors) for i, v in enumerate(value)]}
    return {"value": value}


def _restore(value: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _restore(v, tensors) for k, v in content}
    if kind in ("list", "tuple"):
        items = [_restore(v, tensors) for v in content]
        return tuple(items) if kind == "tuple" else items
    return content


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(asked), default=str))
