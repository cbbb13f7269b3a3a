"""A training run, put aside and taken up again: weights, optimiser, counters, random generators and the data's place.

SAELens' own checkpoints hold neither generators nor the place in the data, so a run resumed from one takes another
path, and their trainer state is a pickle. These are one safetensors file, written whole: what is no tensor travels as
JSON in the file's header. A run resumed from one is equal, bit for bit, to one that was never stopped.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cliplens.errors import MismatchError
from cliplens.files import atomic_write

_PREFIX, _SUFFIX = "training-", ".safetensors"


def save_state(folder: Path, samples: int, state: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Write the checkpoint after `samples` rows, drop the older ones. `asked` is what a resumed run must ask too."""
    tensors: dict[str, Tensor] = {}
    skeleton = _taken_apart(dict(state), "", tensors)
    header = {"state": json.dumps(skeleton), "asked": json.dumps(_plain(asked), sort_keys=True)}
    path = folder / f"{_PREFIX}{samples:012d}{_SUFFIX}"
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=header)
    for old in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        if old.name < path.name:
            old.unlink(missing_ok=True)


def resume_point(folder: Path) -> int:
    """How many rows the newest whole checkpoint in the folder has seen; 0 when training starts from the beginning."""
    found = _newest(folder)
    return 0 if found is None else int(found.name.removeprefix(_PREFIX).removesuffix(_SUFFIX))


def load_state(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest whole checkpoint; None when there is none.

    Raises:
        MismatchError: it was made by a run that asked something else.
    """
    path = _newest(folder)
    if path is None:
        return None
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_asked(json.loads(header["asked"]), _plain(asked), path)
    state = _put_together(json.loads(header["state"]), tensors)
    assert isinstance(state, dict)
    return state


def remove_checkpoints(folder: Path) -> None:
    """Drop every checkpoint: the training they belong to is done."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _newest(folder: Path) -> Path | None:
    for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True):
        try:
            with safe_open(path, "pt") as file:
                file.metadata()
            return path
        except (SafetensorError, OSError):
            continue  # cut by a full disk: an older one, or the beginning, still serves
    return None


def _check_asked(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            raise MismatchError(
                expected=f"the training that {path} belongs to, with {name}={then.get(name)!r}",
                found=f"{name}={now.get(name)!r}",
                fix="ask the same again, or start anew with resume=False or another folder",
            )


def _taken_apart(value: Any, at: str, tensors: dict[str, Tensor]) -> Any:
    """JSON that remembers tuples, keys that are no strings, and which tensor stood where."""
    if isinstance(value, Tensor):
        tensors[at] = value.detach().cpu().clone().contiguous()
        return {"tensor": at}
    if isinstance(value, Mapping):
        return {"dict": [[k, _taken_apart(v, f"{at}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_taken_apart(v, f"{at}/{i}", tensors) for i, v in enumerate(value)]}
    return {"value": value}


def _put_together(value: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _put_together(v, tensors) for k, v in content}
    if kind in ("list", "tuple"):
        items = [_put_together(v, tensors) for v in content]
        return tuple(items) if kind == "tuple" else items
    return content


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(asked), sort_keys=True, default=str))
