"""Open models with hooks: load one by name, or wrap a model object."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from cliplens import registry
from cliplens.contracts import LoadedModel, ModelSource
from cliplens.errors import CliplensError, InputError, UnknownNameError, unknown_name
from cliplens.hooked import (
    HookedCLIP,
    HookedTextTower,
    HookedVisionTower,
    attribute,
    check_weights,
    identity_of,
    open_tower,
    unwrapped,
)

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load(
    name: str,
    pretrained: str | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    check: bool = True,
) -> HookedCLIP:
    """Load a CLIP-like model with hooks on both towers.

    Args:
        name: an open_clip name ("ViT-B-32"), `local-dir:/path` with an open_clip config, or the embedded "world",
            "world-plain" or "emoji". `cliplens models` lists all known names.
        pretrained: a pretrained tag of the model ("laion2b_s34b_b79k"), which may be downloaded, or a local weights
            file.
        device: the device; by default the first available of cuda, mps and cpu.
        dtype: "float32", "float64", "float16" or "bfloat16".
        check: whether to compare hooked and unhooked outputs of unknown model classes; see `wrap`.

    Raises:
        UnknownNameError: the model, tag or dtype is unknown; similar names are listed.

    >>> clip = load("world")
    >>> clip.vision.cfg.n_layers, clip.vision.cfg.d_model
    (3, 96)
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if not isinstance(name, str) or not name:
        raise InputError(
            expected="the name of a model, such as 'ViT-B-32'",
            found=repr(name),
            fix="pass a name of `cliplens models`, hf:owner/name, or local-dir:/path; wrap a model with cliplens.wrap",
        )
    sources = [source for _, source in registry.made("models", ModelSource)]
    for source in sources:
        if source.knows(name):
            return _hooked(
                source.load(name, pretrained, device=pick_device(device), dtype=DTYPES[dtype]),
                check,
                built_by_name=True,
            )
    if "/" in name or Path(name).exists():
        place = f"local-dir:{name}, or hf:{name}" if Path(name).exists() else f"hf:{name}"
        raise UnknownNameError(
            expected="the name of a model, or a place that says what it is",
            found=repr(name),
            fix=f"write {place} (hf: is a repository or folder of transformers, local-dir: a folder of open_clip);"
            " a run folder holds run.toml",
        )
    raise unknown_name("model", name, [card.name for source in sources for card in source.models()])


def wrap(
    model: nn.Module,
    *,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None = None,
    check: bool = True,
) -> HookedCLIP:
    """Add hooks to an existing model object. The object is never changed.

    open_clip and timm models share their weights with the towers, so later changes of the weights are seen. The weights
    of a transformers model are copied (open_clip packs q, k and v, transformers does not), so wrap it again after a
    change. `torch.compile`, DataParallel, DistributedDataParallel and `PeftModel` wrappers are removed first.

    Args:
        model: an open_clip model, or any model that an installed source recognises.
        preprocess: function from a picture to Float[Tensor, "3 height width"]; by default the one that the model's
            configuration describes.
        tokenizer: function from captions to Int64[Tensor, "caption context"]; by default that of the model.
        check: compare hooked and unhooked outputs once on two random inputs, which finds a subclass, a replaced method
            or part, a LoRA, or a forward hook. Models that are put together alike are compared once.

    Raises:
        InputError: no installed source recognises the model.
        MismatchError: hooked and unhooked outputs differ; the message names the first block that differs, and why.
    """
    model = unwrapped(model)
    check_weights(model)
    sources = [source for _, source in registry.made("models", ModelSource)]
    for source in sources:
        loaded = source.adopt(model)
        if loaded is not None:
            return _hooked(_with_own(loaded, preprocess, tokenizer), check)
    inside = _recognised_inside(model, sources)
    raise InputError(
        expected="a model that an installed source recognises",
        found=f"{type(model).__module__}.{type(model).__qualname__}",
        fix=f"wrap the model inside it: cliplens.wrap({attribute(inside)})"
        if inside
        else "wrap an open_clip model, or write a ModelSource for it (CONTRIBUTING.md, 'Adding a tower')",
    )


def domain_note(name: str, pictures: str = "") -> str:
    """Return a sentence about a model that knows one small kind of pictures and words alone; "" for the others.

    Args:
        name: of the model, as `load` takes it.
        pictures: source of the pictures; the model's own, such as `emoji:noto`, needs no note.

    >>> domain_note("world")[:41]
    'world was trained on nothing but pictures'
    """
    if pictures.startswith(f"{name.partition('-')[0]}:"):
        return ""
    for _, source in registry.made("models", ModelSource):
        if source.knows(name):
            seen = source.trained_on(name)
            return seen and f"{name} was trained on nothing but {seen}; on others its answers mean little."
    return ""


def _recognised_inside(model: nn.Module, sources: Sequence[ModelSource]) -> str | None:
    """Return the name of the outermost module inside a model that a source recognises."""
    names = sorted((name for name, _ in model.named_modules() if name), key=lambda name: name.count("."))
    for name in names:
        try:
            if any(source.adopt(model.get_submodule(name)) is not None for source in sources):
                return name
        except CliplensError:
            return name  # a source knows its class, and says what is wrong with it when asked
    return None


def _with_own(
    loaded: LoadedModel,
    preprocess: Callable[[Image.Image], Tensor] | None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None,
) -> LoadedModel:
    """Replace preprocess and tokenizer of a model by the user's, and update its identity."""
    if preprocess is None and tokenizer is None:
        return loaded
    own = replace(loaded, preprocess=preprocess or loaded.preprocess, tokenizer=tokenizer or loaded.tokenizer)
    identity = identity_of(
        own.module,
        name=own.identity.name,
        pretrained=own.identity.pretrained,
        preprocess=own.preprocess,
        tokenizer=own.tokenizer,
    )
    return replace(own, identity=identity)


def _hooked(loaded: LoadedModel, check: bool, *, built_by_name: bool = False) -> HookedCLIP:
    vision = open_tower(loaded.module, "vision", check=check, built_by_name=built_by_name)
    text = open_tower(loaded.module, "text", check=check, built_by_name=built_by_name)
    assert vision is None or isinstance(vision, HookedVisionTower)
    assert text is None or isinstance(text, HookedTextTower)
    clip = HookedCLIP(
        loaded.module,
        vision=vision,
        text=text,
        preprocess=loaded.preprocess,
        tokenizer=loaded.tokenizer,
        identity=loaded.identity,
    )
    if check:
        clip.prove()
    return clip


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the given device, or else the first available of cuda (one per process under torchrun), mps and cpu.

    Raises:
        InputError: the given device has no such name, or is not on this machine.
    """
    if device is not None:
        return _present(device)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _present(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(
            expected="a device as PyTorch names it, such as cpu, cuda, cuda:1 or mps",
            found=repr(device),
            fix="leave the device out, to take the first available",
        ) from error
    cards = torch.cuda.device_count()
    missing_card = found.type == "cuda" and (found.index or 0) >= cards
    if missing_card or (found.type == "mps" and not torch.backends.mps.is_available()):
        raise InputError(
            expected="a device of this machine, on which this build of PyTorch can compute",
            found=f"{found}, with {cards} CUDA devices here" if missing_card else f"{found}, which is not available",
            fix="leave the device out, to take the first available, or pass cpu",
        )
    return found
