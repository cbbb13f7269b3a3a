"""The identity of a model: hashes of weights, preprocessing and tokenizer, compared with dictionaries and caches."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from cliplens.records import ModelIdentity

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PROBES = (
    "a photo of a cat",
    "A PHOTO of two Dogs, running!",
    "naïve café – 東京の夜 мир 123.45",
    "  spaces\tand\nlines  ",
    "it's the quick-brown_fox's 7th <|endoftext|> #tag @home &amp; co.",
    "antidisestablishmentarianism " * 30,
    "",
)
"""Captions on which tokenizers differ: letter case, scripts, digits, spaces, markup, truncation, empty text."""


def identity_of(
    model: nn.Module,
    *,
    name: str,
    pretrained: str | None,
    preprocess: Callable[[Image.Image], Tensor] | str | None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None,
) -> ModelIdentity:
    """Return the identity of a model with its preprocess (or the description of one) and tokenizer."""
    described = preprocess if isinstance(preprocess, str) else description(preprocess)
    return ModelIdentity(
        name=name,
        pretrained=pretrained,
        weights_sha256=weights_sha256(model),
        preprocess=described,
        preprocess_sha256=hashlib.sha256(described.encode()).hexdigest(),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        adapters=adapters_in(model),
    )


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 over name, dtype, shape and bytes of every tensor of the state dict. The device is ignored."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):  # what a module keeps beside its tensors (`get_extra_state`)
            digest.update(f"{name} {value!r}\n".encode())
            continue
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Callable[[Sequence[str]], Tensor] | None) -> str:
    """Return the SHA-256 over the token ids of fixed captions; "" without a tokenizer."""
    if tokenizer is None:
        return ""
    ids = tokenizer(list(_PROBES)).cpu().to(torch.int64).contiguous()
    return hashlib.sha256(f"{tuple(ids.shape)}".encode() + ids.numpy().tobytes()).hexdigest()


def description(preprocess: Any) -> str:
    """Describe a transform by a text that is the same in every process."""
    if preprocess is None:
        return ""
    named = preprocess if hasattr(preprocess, "__qualname__") else type(preprocess)
    if named is preprocess or "__repr__" not in {n for kind in type(preprocess).__mro__[:-1] for n in vars(kind)}:
        return f"{named.__module__}.{named.__qualname__}"
    return _ADDRESS.sub("", repr(preprocess))


def adapters_in(model: nn.Module) -> str | None:
    """Return the kinds of unmerged fine-tuning adapters in the model; None when there are none."""
    kinds = {"lora_": "LoRA", "adapter_": "adapter", "oft_": "OFT", "hada_": "LoHa"}
    names = model.state_dict().keys()
    found = sorted({kind for mark, kind in kinds.items() if any(mark in name for name in names)})
    return ", ".join(found) or None


class LiveIdentity:
    """The identity of a model whose weights may change after it was opened.

    Changes in place (an optimiser step, `load_state_dict`, a new adapter) are detected; the weights are hashed again
    when the identity is next read. Moving to another device or dtype is not a change.
    """

    def __init__(self, model: nn.Module, identity: ModelIdentity) -> None:
        self._model, self._identity = model, identity
        self._versions, self._dtypes = _versions(model)

    def now(self) -> ModelIdentity:
        """Return the identity of the current weights."""
        versions, dtypes = _versions(self._model)
        if versions != self._versions and dtypes == self._dtypes:
            self._identity = replace(
                self._identity, weights_sha256=weights_sha256(self._model), adapters=adapters_in(self._model)
            )
            self._versions = versions
        return self._identity


def _versions(model: nn.Module) -> tuple[list[tuple[int, int]], set[torch.dtype]]:
    """Return version counters and dtypes of the weights; they differ after a change in place."""
    weights = list(model.parameters())
    return [(id(p), 0 if p.is_inference() else p._version) for p in weights], {p.dtype for p in weights}
