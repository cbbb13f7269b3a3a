"""Check that a joint model has the same outputs as its towers.

A tower wraps one encoder. A joint model may change its output: by a subclass with its own `encode_image`, a replaced
method, or a hook on the whole model. Or an encoder may be replaced later. Then towers and model differ.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cliplens.errors import MismatchError
from cliplens.hooked.proof import TOLERANCE, gap_between, probe_inputs
from cliplens.hooked.structure import HOOKS, change, in_eval_mode
from cliplens.hooked.tower import HookedTower
from cliplens.sites import Side

_ENCODERS: dict[Side, str] = {"vision": "encode_image", "text": "encode_text"}


class JointProof:
    """Compare a joint model with its towers when it is opened, and check at each call that it did not change.

    Args:
        model: the joint model.
        towers: its towers.
        logits: unit-norm embeddings of images and captions -> logits, as the hooked model computes them.
    """

    def __init__(
        self, model: nn.Module, towers: Mapping[Side, HookedTower], logits: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self.model, self.towers, self.logits = model, towers, logits
        self._parts, self._rest = _parts(model), _rest(model)
        self.prove()

    def check(self) -> None:
        """Refuse a model whose parts were replaced; compare again one whose methods or hooks changed.

        Raises:
            MismatchError: a part was replaced, or outputs differ; the message names the change.
        """
        parts, rest = _parts(self.model), _rest(self.model)
        if parts != self._parts:
            raise MismatchError(
                expected=f"the parts that {type(self.model).__name__} had when it was wrapped",
                found=f"another {_first_that_differs(self._parts, parts)}",
                fix="wrap the model again: cliplens.wrap(clip.model)",
            )
        if rest != self._rest:
            self.prove()
            self._rest = rest

    def prove(self) -> None:
        """Compare embeddings and logits on random inputs, unless the model is exactly of a known class.

        Raises:
            MismatchError: they differ.
        """
        why = change(self.model)
        if why is None or any(tower.stock is self.model for tower in self.towers.values()):
            return
        with torch.no_grad(), in_eval_mode(self.model):
            inputs = {side: probe_inputs(tower) for side, tower in self.towers.items()}
            own = {side: tower.run_stock(inputs[side]) for side, tower in self.towers.items()}
            for side, embedding in own.items():
                _compare(f"{_ENCODERS[side]} gives", _encoded(self.model, side, inputs[side]), embedding, why)
            if len(own) == 2 and isinstance(getattr(self.model, "logit_scale", None), Tensor):
                unit = {side: torch.nn.functional.normalize(rows, dim=-1) for side, rows in own.items()}
                wanted = _logits(self.model, inputs["vision"], inputs["text"])
                _compare("forward gives", wanted, self.logits(unit["vision"], unit["text"]), why)


def _compare(what: str, wanted: Tensor | None, got: Tensor, why: str) -> None:
    if wanted is None:
        return
    gap = gap_between(got, wanted)
    if not gap <= TOLERANCE.get(wanted.dtype, 1e-2):
        raise MismatchError(
            expected="a model with the same output as its encoders",
            found=f"{what} something else (a difference of {gap:.1e}); the model is {why}",
            fix="wrap the plain model, write a ModelSource for yours (CONTRIBUTING.md, 'Adding a tower'),"
            " or pass check=False to read its encoders anyway",
        )


def _encoded(model: nn.Module, side: Side, inputs: Tensor) -> Tensor | None:
    """Return unnormalised embeddings from the model's own method; None if it does not return a tensor."""
    method = getattr(model, _ENCODERS[side], None)
    if method is None:
        return None
    try:
        named = {"normalize": False} if "normalize" in inspect.signature(method).parameters else {}
        answer = method(inputs, **named)
    except (RuntimeError, TypeError, ValueError):
        return None
    return answer if isinstance(answer, Tensor) else None


def _logits(model: Any, images: Tensor, tokens: Tensor) -> Tensor | None:
    """Return logits from the output of open_clip's forward: unit-norm embeddings, scale, and a bias if there is one."""
    try:
        answer = model(images, tokens)
    except (RuntimeError, TypeError, ValueError):
        return None
    if isinstance(answer, Mapping):
        named = ("image_features", "text_features", "logit_scale", "logit_bias")
        answer = tuple(answer[name] for name in named if answer.get(name) is not None)
    if not (isinstance(answer, tuple) and len(answer) in (3, 4) and all(isinstance(v, Tensor) for v in answer)):
        return None
    image, text, scale, *bias = answer
    if image.ndim != 2 or text.ndim != 2 or scale.ndim or any(b.ndim for b in bias):
        return None
    return scale * image @ text.T + (bias[0] if bias else 0)


def _parts(model: nn.Module) -> dict[str, nn.Module | None]:
    return dict(model._modules)


def _rest(model: nn.Module) -> list[Any]:
    own = vars(model)
    methods = [vars(kind).get(name) for kind in type(model).__mro__ for name in (*_ENCODERS.values(), "forward")]
    return [type(model), len(own), methods, [tuple(own[hooks]) for hooks in HOOKS]]


def _first_that_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return repr(next(name for name in (*before, *now) if before.get(name) is not now.get(name)))
