"""Determine the activation of a foreign dictionary from its configuration, or else from its tensors; never guess.

A TopK dictionary read as ReLU would fire far too often without an error. So contradictions raise an error: between
two entries of a configuration, between configuration and tensors, and any unknown activation.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cliplens.errors import InputError

Kind = Literal["relu", "topk", "batchtopk", "jumprelu", "gated"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ACTIVATION_KEYS = ("activation", "activation_fn", "activation_fn_str", "activation_function", "act_fn", "nonlinearity")
_CLASS_KEYS = ("architecture", "sae_type", "dict_class")
_SECTIONS = ("trainer", "sae", "autoencoder", "cfg", "config")
_K_KEYS = ("k", "top_k", "topk")
_PARAMETERS = ("params", "kwargs", "activation_fn_kwargs", "activation_kwargs", "activation_params")
_THRESHOLD_KEYS = ("threshold", "running_threshold", "jump_threshold", "jumprelu_threshold", "jump_relu_threshold")

_WORDS: dict[str, Kind] = {
    "relu": "relu",
    "topk": "topk",
    "topkrelu": "topk",
    "relutopk": "topk",
    "batchtopk": "batchtopk",
    "batchedtopk": "batchtopk",
    "matryoshkabatchtopk": "batchtopk",
    "matroyshkabatchtopk": "batchtopk",
    "jumprelu": "jumprelu",
    "jump": "jumprelu",
    "gated": "gated",
}
_CLASS_WORDS: dict[str, Kind | None] = {
    **_WORDS,
    "standard": None,
    "vanilla": None,
    "autoencoder": None,
    "sparseautoencoder": None,
    "": None,
}
_DICT_CLASSES: dict[str, Kind | None] = {
    **_CLASS_WORDS,
    "autoencoder": "relu",
    "autoencodernew": "relu",
    "gatedautoencoder": "gated",
    "autoencodertopk": "topk",
    "jumpreluautoencoder": "jumprelu",
}
"""Classes of dictionary_learning, each of which has one activation."""


@dataclass(frozen=True)
class Activation:
    """An activation, as far as one source defines it."""

    kind: Kind | None = None
    k: int | None = None
    threshold: Tensor | None = None
    """One number, or one per latent."""


def configured_activation(config: Mapping[str, Any]) -> Activation:
    """Return the activation in a configuration; fields that it does not define are None.

    Raises:
        InputError: an unknown activation, contradictory entries, or a `k` or threshold that is not a number.
    """
    kind = _one_kind(list(_named_kinds(config)))
    ks = {f"{at}={value!r}": _whole(value, at) for at, value in _parameters(config, _K_KEYS)}
    if len(set(ks.values())) > 1:
        raise InputError(
            expected="one number of latents that fire",
            found=f"{' and '.join(ks)} in the configuration",
            fix="keep the right one in the configuration",
        )
    thresholds = [_numbers(value, at) for at, value in _parameters(config, _THRESHOLD_KEYS)]
    return Activation(kind, next(iter(ks.values()), None), next(iter(thresholds), None))


def decide(layout: str, config: Mapping[str, Any], from_file: Activation, allowed: frozenset[Kind]) -> Activation:
    """Return the activation of a dictionary, complete with its `k` or threshold.

    Args:
        layout: the layout's name, for messages.
        config: the configuration of the dictionary; it takes precedence.
        from_file: the activation by tensors, class or file name, used if the configuration does not define it.
        allowed: the activations that fit the tensors.

    Raises:
        InputError: configuration and file contradict each other, or do not define the activation.
    """
    asked = configured_activation(config)
    kind = asked.kind or from_file.kind
    if asked.kind is None and asked.k is not None and kind not in ("topk", "batchtopk"):
        raise InputError(
            expected=f"a dictionary of the {layout} layout whose configuration names its activation",
            found=f"k={asked.k} without an activation",
            fix='add its activation to the configuration, for example "activation": "topk"',
        )
    if kind is None:
        raise InputError(
            expected=f"a {layout} dictionary that defines its activation",
            found="a configuration and tensors that do not define it",
            fix='put a config.json next to it, for example {"activation": "topk", "k": 32}',
        )
    if kind not in allowed:
        raise InputError(
            expected=f"tensors of a {kind} dictionary, as in its configuration",
            found=f"a {layout} file whose tensors belong to {' or '.join(sorted(allowed))}",
            fix="pair the weights with the configuration they were saved with",
        )
    if kind in ("topk", "batchtopk") and asked.k is not None and from_file.k not in (None, asked.k):
        raise InputError(
            expected=f"k={from_file.k}, as the file holds it",
            found=f"k={asked.k} in the configuration",
            fix="pair the weights with the configuration they were saved with",
        )
    return _complete(layout, kind, asked, from_file)


def _complete(layout: str, kind: Kind, asked: Activation, from_file: Activation) -> Activation:
    k = asked.k if asked.k is not None else from_file.k
    threshold = from_file.threshold if from_file.threshold is not None else asked.threshold
    if kind == "topk" and k is None:
        raise InputError(
            expected=f"a topk dictionary of the {layout} layout that says how many latents fire",
            found="no k",
            fix='add "k" to its configuration',
        )
    if kind in ("batchtopk", "jumprelu") and threshold is None:
        raise InputError(
            expected=f"a {kind} dictionary of the {layout} layout with its threshold",
            found="none, neither in the file nor in the configuration",
            fix='add "threshold" to its configuration; without one it depends on the whole batch',
        )
    return Activation(kind, k, threshold)


def names_activation(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration names an activation or a class of dictionaries."""
    return any(key in content for _, content in _sections(config) for key in (*_ACTIVATION_KEYS, *_CLASS_KEYS))


def _sections(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configuration, its usual sections, and any other section that names an activation of dictionaries."""
    yield "", config
    for name, section in _mappings(config):
        if name in _SECTIONS or (name.rpartition(".")[2] not in _ACTIVATION_KEYS and _is_sparse(section)):
            yield f"{name}.", section


def _mappings(config: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield f"{within}{name}", value
            yield from _mappings(value, f"{within}{name}.")


def _is_sparse(section: Mapping[str, Any]) -> bool:
    """Return whether a section names an activation that only dictionaries have."""
    words = [_word_of(section.get(key)) for key in _ACTIVATION_KEYS]
    return any(_WORDS.get(_plain(word), "relu") != "relu" for word in words if isinstance(word, str))


def _named_kinds(config: Mapping[str, Any]) -> Iterator[tuple[str, Kind, bool]]:
    """Yield each entry that names an activation, the activation, and whether it is the name of a class."""
    for section, content in _sections(config):
        for key in _ACTIVATION_KEYS:
            word = _word_of(content.get(key))
            if word is not None:
                yield f"{section}{key}={word!r}", _known(word, _WORDS, f"{section}{key}"), False
        for key in _CLASS_KEYS:
            word = _word_of(content.get(key))
            words = _DICT_CLASSES if key == "dict_class" else _CLASS_WORDS
            kind = None if word is None else _known(word, words, f"{section}{key}")
            if word is not None and kind is not None:
                yield f"{section}{key}={word!r}", kind, True


def _one_kind(named: list[tuple[str, Kind, bool]]) -> Kind | None:
    """Return the activation. A class (gated, jumprelu, ...) may have ReLU as the activation inside it."""
    classes = {kind for _, kind, by_class in named if by_class}
    inside = {kind for _, kind, by_class in named if not by_class}
    kinds = classes | (inside - {"relu"} if classes else inside)
    if len(kinds) > 1:
        raise InputError(
            expected="one activation",
            found=f"{' and '.join(at for at, _, _ in named)} in the configuration",
            fix="keep the right one in the configuration",
        )
    return next(iter(kinds), None)


def _word_of(value: Any) -> Any:
    """Return the name of an activation: the value, or the class in `{"cls": ..., "params": ...}`."""
    if isinstance(value, Mapping):
        return next((value[key] for key in ("cls", "name", "type", "class") if key in value), "")
    return value


def _known(word: Any, words: Mapping[str, Any], at: str) -> Any:
    plain = _plain(word) if isinstance(word, str) else "?"
    for form in (plain, plain.removesuffix("sae"), plain.removesuffix("activation")):
        if form in words:
            return words[form]
    raise InputError(
        expected=f"one of the activations {', '.join(KINDS)}",
        found=f"{at}={word!r} in the configuration",
        fix="keep using this dictionary with its authors' code, or correct its configuration",
    )


def _plain(word: str) -> str:
    """Return a word without its module, capitals and punctuation: "torch.nn.ReLU()" -> "relu"."""
    return re.sub(r"[^a-z0-9]", "", word.rpartition(".")[2].casefold())


def _parameters(config: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for section, content in _sections(config):
        inner = [content[key] for key in (*_ACTIVATION_KEYS, *_PARAMETERS) if isinstance(content.get(key), Mapping)]
        inner += [part["params"] for part in inner if isinstance(part.get("params"), Mapping)]
        for part in (content, *inner):
            for key in keys:
                if part.get(key) is not None:
                    yield f"{section}{key}", part[key]


def _whole(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf or value % 1:
        raise InputError(
            expected=f"{at}, the number of latents that fire, as a whole number of at least 1",
            found=repr(value),
            fix="correct the configuration",
        )
    return int(value)


def _numbers(value: Any, at: str) -> Tensor:
    flat = value if isinstance(value, list) else [value]
    if not flat or any(isinstance(v, bool) or not isinstance(v, int | float) for v in flat):
        raise InputError(
            expected=f"{at} as a number, or a list with one number per latent",
            found=repr(value)[:60],
            fix="correct the configuration",
        )
    return torch.tensor(value, dtype=torch.float32)
