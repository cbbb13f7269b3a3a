"""Refuse a checkpoint that says or holds more than its layout computes with.

A normalisation of the inputs that nobody applies, or a tensor nobody reads, would give other codes without any error.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

from cliplens.sae.foreign.layout import Checkpoint, unsupported

_SECTIONS = ("trainer", "sae", "autoencoder", "cfg", "config", "model")
_NEUTRAL = ("", "none", "null", "identity", "no", "false")
_FACTORS = ("scale", "factor")
_NORMS = re.compile(
    r"(input|activation|act|dataset|data)s?_?(norm|scal|mean|std|whiten|cent)\w*"
    r"|(normali[sz]e|norm|scale|cent(er|re)|standardi[sz]e|whiten)(_(input|activation|act|data)s?(_scaling_factor)?)?"
    r"|normali[sz]ation|whitening|standardi[sz]ed|cent(er|re)ed|mean_cent(er|re)|mean|std"
    r"|(norm_)?scal(e|ing)_factor|norm_factor|finetuning_scaling_factor|(use_)?layer_?norm"
    r"|dataset_average_activation_norm|rescale_acts_by_decoder_norm|sparsity_include_decoder_norm"
)
"""Names under which configurations keep what happens to activations before the encoder, or to codes behind it."""
_COUNTERS = re.compile(
    r"(^|[._])(sparsity|freq|frequency|frequencies|fired|firing|dead|alive|since|steps?|iterations?|n|num|loss|ema|l0"
    r"|usage|counts?|stats?|optimizer|scheduler|temperature|bandwidth|age|(in)?active|last|history)([._]|$)",
    re.IGNORECASE,
)
"""Words in the names of tensors that belong to training and take no part in the codes."""


def check_leftovers(layout: str, checkpoint: Checkpoint, understood: Collection[str]) -> None:
    """Refuse normalisations and tensors that the layout did not read.

    Args:
        layout: the layout's name.
        checkpoint: the checkpoint; its `read` contains the names of the tensors in use.
        understood: names of the configuration that the layout follows.

    Raises:
        InputError: names what would be left out.
    """
    for at, value in _norms(checkpoint.config, understood):
        raise unsupported(
            layout, f"{at}={value!r} in its configuration, which changes activations or codes and is not applied here"
        )
    state = checkpoint.state
    beside = {} if checkpoint.content.keys() <= state.keys() else checkpoint.content
    unread = [name for name, value in state.items() if _counts(name, value) and name not in checkpoint.read]
    unread += [
        name
        for name, value in beside.items()
        if _counts(name, value) and _NORMS.fullmatch(name.casefold()) and name not in checkpoint.read
    ]
    if unread:
        raise unsupported(layout, f"{', '.join(map(repr, unread[:3]))}, which the formula of this layout does not use")


def _norms(config: Mapping[str, Any], understood: Collection[str]) -> Iterator[tuple[str, Any]]:
    parts = [("", config)]
    parts += [(f"{name}.", config[name]) for name in _SECTIONS if isinstance(config.get(name), Mapping)]
    for section, content in parts:
        for name, value in content.items():
            if name not in understood and _NORMS.fullmatch(str(name).casefold()) and not _neutral(str(name), value):
                yield f"{section}{name}", value


def _neutral(name: str, value: Any) -> bool:
    if isinstance(value, str):
        return value.casefold() in _NEUTRAL
    if isinstance(value, bool) or not isinstance(value, int | float):
        return not value or (isinstance(value, list) and not any(value))
    return value == 0 or (value == 1 and any(word in name for word in _FACTORS))


def _counts(name: str, value: Any) -> bool:
    """Return whether an entry is a tensor that could take part in the codes."""
    number = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return number and not _COUNTERS.search(name)
