"""Read the tensors of a weights file in any common container, without running code of the file.

It opens safetensors, pickles of tensors (plain or under keys such as `state_dict`), and TorchScript archives such as
OpenAI's, whose classes are replaced by stand-ins and whose code is never loaded.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cliplens.errors import DamagedError, InputError, MismatchError, UnsafeFileError

State = dict[str, Tensor]
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net")
"""Keys of training checkpoints that hold the weights of the model."""
PREFIXES = ("module.", "model.", "_orig_mod.", "clip.", "clip_model.", "net.")
"""Prefixes that DDP, Lightning, torch.compile and training scripts add to every name."""
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "transformer.attn_mask")
"""Numbers and masks among the weights in OpenAI's archives and old exports."""
_OBJECTS = (re.compile(r"GLOBAL ([\w.]+)"), re.compile(r"class ([\w.]+)"), re.compile(r"Unsupported \w+:? ([\w.]+)"))
_CONTROL = re.compile(r"\x1b\[[0-9;]*m")


def read_tensors(path: Path, names: Iterable[str] = ()) -> State:
    """Return the state dict of a weights file.

    Args:
        path: the file.
        names: names of the tensors of the model. With them, prefixes are removed so that most names match, and other
            tensors (of a loss, an EMA copy) are left out with a warning.

    Raises:
        InputError: the file is missing or contains no tensors.
        UnsafeFileError: it contains other objects than tensors; the message names one.
        DamagedError: it is truncated, or is not a weights file.
    """
    if not path.is_file():
        raise InputError(expected="a weights file", found=f"no file at {path}", fix="check the path")
    found = _opened(path)
    if not isinstance(found, Mapping):
        raise InputError(
            expected=f"tensors by name in {path}",
            found=f"a {type(found).__name__}",
            fix="save model.state_dict() with safetensors.torch.save_file",
        )
    inner = next((found[key] for key in CONTAINERS if isinstance(found.get(key), Mapping)), found)
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        raise InputError(
            expected=f"tensors by name in {path}",
            found=f"keys {sorted(map(str, found))[:6]} without any",
            fix=f"save the model's state_dict by itself, or under one of {', '.join(CONTAINERS)}",
        )
    _check_merged(state, path)
    return _fitted({name.replace("_orig_mod.", ""): value for name, value in state.items()}, set(names), path)


def _check_merged(state: State, path: Path) -> None:
    """Refuse a checkpoint with a LoRA stored beside the weights, since the weights alone are those of another model."""
    apart = next((name for name in state if "lora_" in name or ".base_layer." in name), None)
    if apart is not None:
        raise MismatchError(
            expected=f"weights in {path} with adapters merged into them",
            found=f"{apart!r}, an adapter stored beside the weights",
            fix="merge the adapter (model.merge_and_unload()), then save the state_dict",
        )


def without_numbers(state: State, names: Iterable[str]) -> State:
    """Remove entries of OpenAI's archives that are not weights of the model."""
    own = set(names)
    return {name: value for name, value in state.items() if name in own or name not in NO_WEIGHTS}


def check_floating(state: State, like: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights are floating-point. Quantised weights would lose their scales when copied into a model.

    Raises:
        MismatchError: they are not; the message names the first such tensor.
    """
    for name, value in state.items():
        if name in like and like[name].is_floating_point() and not value.is_floating_point():
            raise MismatchError(
                expected=f"floating-point weights in {path}",
                found=f"{name!r} of dtype {str(value.dtype).removeprefix('torch.')}",
                fix="save the weights from before quantisation",
            )


def unsafe(path: Path | str, error: BaseException) -> UnsafeFileError:
    """Return the error for a pickle with other objects than tensors; it names one."""
    words = _CONTROL.sub("", str(error))
    named = next((match[1] for pattern in _OBJECTS if (match := pattern.search(words))), None)
    return UnsafeFileError(
        expected=f"tensors only in {path}",
        found=f"an object of {named}" if named else "other objects",
        fix="if you trust the file, save its state_dict with safetensors.torch.save_file and pass that file",
    )


def _opened(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(
                name.endswith(("/constants.pkl", "/version.json")) or "/code/" in name for name in archive.namelist()
            ):
                return _scripted(path, archive)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise _damaged(path, error) from error
        raise unsafe(path, error) from error
    except Exception as error:  # On a file that is not a pickle, the unpickler can raise any error.
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> DamagedError:
    first = " ".join(_CONTROL.sub("", str(error)).split())[:120] or type(error).__name__
    return DamagedError(
        expected=f"a complete weights file at {path}",
        found=first,
        fix="download or copy it again, and compare its size",
    )


def _fitted(state: State, names: set[str], path: Path) -> State:
    for _ in range(len(PREFIXES)):
        known = (*PREFIXES, *_prefix_in(state, names))
        better = next((p for p in known if _fits_better(state, p, names)), None)
        if better is None:
            break
        others = [name for name in state if not name.startswith(better)]
        if others:
            warnings.warn(
                f"{path}: {len(others)} tensors outside {better!r} are no part of the model, such as {others[0]!r}",
                stacklevel=5,
            )
        state = {name.removeprefix(better): value for name, value in state.items() if name.startswith(better)}
    return state


def _prefix_in(state: State, names: set[str]) -> tuple[str, ...]:
    """Return the prefix that a checkpoint puts before the names of the model's weights, in a tuple; empty if none."""
    if not names or names & state.keys():
        return ()
    longest = max(names, key=len)
    return tuple(name.removesuffix(longest) for name in state if name.endswith(f".{longest}"))[:1]


def _fits_better(state: State, prefix: str, names: set[str]) -> bool:
    own = {name.removeprefix(prefix) for name in state if name.startswith(prefix)}
    if not own:
        return False
    if len(own) == len(state):
        return not names & state.keys()
    return len(own & names) > len(names & state.keys())


class _StandIn:
    """A stand-in for an object of a class of the archive: it has the attributes and no code."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _Archive(pickle.Unpickler):
    """Unpickles the module of a TorchScript archive as stand-ins and tensors. Any other global is an error."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
        self._storages: dict[str, Any] = {}
        super().__init__(io.BytesIO(archive.read(f"{self._root}data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a class of the archive, or one of the few functions that make tensors."""
        if module.startswith("__torch__"):
            return _StandIn
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name.endswith("Storage") and isinstance(getattr(torch, name, None), type):
            return getattr(torch, name)
        if module == "torch.jit._pickle":
            return _plain
        raise unsafe(self._path, pickle.UnpicklingError(f"GLOBAL {module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage of a tensor."""
        _, kind, key, _, _ = pid
        if key not in self._storages:
            raw = bytearray(self._archive.read(f"{self._root}data/{key}"))
            held = torch.frombuffer(raw, dtype=torch.uint8).untyped_storage() if raw else torch.UntypedStorage(0)
            self._storages[key] = torch.storage.TypedStorage(wrap_storage=held, dtype=kind.dtype, _internal=True)
        return self._storages[key]


def _plain(*given: Any) -> Any:
    """Return the argument, in place of `torch.jit._pickle`'s builders of lists."""
    return given[0] if given else None


def _scripted(path: Path, archive: zipfile.ZipFile) -> State:
    try:
        module = _Archive(path, archive).load()
    except UnsafeFileError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    return dict(_named(module, ""))


def _named(module: Any, prefix: str) -> Iterable[tuple[str, Tensor]]:
    for name, value in vars(module).items() if isinstance(module, _StandIn) else ():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _StandIn):
            yield from _named(value, f"{prefix}{name}.")
