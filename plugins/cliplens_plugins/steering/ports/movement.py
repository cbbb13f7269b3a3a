"""How far steering moved a model: counted while it runs, so that an edit without effect cannot pass for success."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cliplens.errors import NoEffectError
from cliplens_plugins.steering.ports.rewriting import Rewrite


class NoEffectWarning(UserWarning):
    """Steering was open, the model ran, and nothing changed."""


class Movement:
    """What one steering context changed. `with steer(...) as movement:` yields it; read it during or after the block.

    A relative movement is the Frobenius norm of the change divided by that of the plain tensor; 0 means no change.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        """The site, as warnings name it."""
        self.calls = 0
        """How many times activations were rewritten."""
        self.runs = 0
        """How many times the model ran, where that is counted."""
        self._changed: Tensor | None = None
        self._before: Tensor | None = None
        self._conditioning: float | None = None

    @property
    def activations(self) -> float:
        """Relative movement of the rewritten activations; nan before any were rewritten."""
        if self._changed is None or self._before is None:
            return float("nan")
        return float((self._changed / self._before.clamp_min(1e-24)).sqrt())

    @property
    def conditioning(self) -> float:
        """Relative movement of what the rest of the model reads; nan where that is not measured."""
        return float("nan") if self._conditioning is None else self._conditioning

    @property
    def compared(self) -> bool:
        """Whether the conditioning was compared with the plain one."""
        return self._conditioning is not None

    def counted(self, rewrite: Rewrite) -> Rewrite:
        """Return the same rewrite, counting its calls and how far it moves activations."""

        def rewritten(acts: Tensor, special: Tensor | None) -> Tensor:
            new = rewrite(acts, special)
            with torch.no_grad():
                changed = (new.detach().float() - acts.detach().float()).square().sum().double()
                before = acts.detach().float().square().sum().double()
            self.calls += 1
            self._changed = changed if self._changed is None else self._changed + changed
            self._before = before if self._before is None else self._before + before
            return new

        return rewritten

    def compare(self, plain: Any, steered: Any) -> float:
        """Compare the plain with the steered conditioning, keep the relative movement and return it."""
        changed, before = 0.0, 0.0
        for p, s in zip(tensors_in(plain), tensors_in(steered), strict=True):
            changed += float((s.float() - p.float()).square().sum())
            before += float(p.float().square().sum())
        self._conditioning = (changed / max(before, 1e-24)) ** 0.5
        return self._conditioning

    def refuse_unread(self, site: str, reader: str, instead: str) -> None:
        """Refuse a site that was rewritten and did not move the conditioning.

        Raises:
            NoEffectError: names the site and one that is read.
        """
        if self.calls and self.activations > 0 and self.conditioning == 0:
            raise NoEffectError(
                expected=f"a site that {reader} reads",
                found=f"{site}, whose edit has no effect: the activations moved by {self.activations:.3g} and what "
                f"{reader} reads did not move",
                fix=instead,
            )

    @contextmanager
    def told(self) -> Iterator["Movement"]:
        """Warn at the end of the block when the model ran and nothing changed."""
        yield self
        if self.runs and not self.calls:
            _warn(f"{self.what} was not steered: the model ran {self.runs} times and never computed that site")
        elif self.calls and self.activations == 0:
            _warn(f"steering {self.what} changed nothing: no code was edited, for example because no latent fired")


def tensors_in(value: Any) -> list[Tensor]:
    """Return the floating-point tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        return [value.detach()] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for part in value for t in tensors_in(part)]
    return []


def _warn(message: str) -> None:
    warnings.warn(message, NoEffectWarning, stacklevel=4)
