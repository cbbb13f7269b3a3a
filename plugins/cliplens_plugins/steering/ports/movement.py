"""Measure the change made by steering while the model runs, to detect edits without effect."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cliplens.errors import NoEffectError
from cliplens_plugins.steering.ports.rewriting import Rewrite


class NoEffectWarning(UserWarning):
    """The model ran while steered, and nothing changed."""


class Movement:
    """The change made in one steering context, as yielded by `with steer(...) as movement:`.

    Read it during or after the block. A relative movement is the Frobenius norm of the change, divided by that of the
    unsteered tensor; 0 means no change.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        """Name of the site in warnings."""
        self.calls = 0
        """Number of times that activations were rewritten."""
        self.runs = 0
        """Number of times that the model ran, where that is counted."""
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
        """Relative movement of the conditioning, the input of the rest of the model; nan if not measured."""
        return float("nan") if self._conditioning is None else self._conditioning

    @property
    def compared(self) -> bool:
        """Whether the conditioning was compared with the unsteered one."""
        return self._conditioning is not None

    def counted(self, rewrite: Rewrite) -> Rewrite:
        """Wrap a rewrite to count its calls and measure its relative movement."""

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
        """Compare unsteered and steered conditioning; store and return the relative movement."""
        changed, before = 0.0, 0.0
        for p, s in zip(tensors_in(plain), tensors_in(steered), strict=True):
            changed += float((s.float() - p.float()).square().sum())
            before += float(p.float().square().sum())
        self._conditioning = (changed / max(before, 1e-24)) ** 0.5
        return self._conditioning

    def refuse_unread(self, site: str, reader: str, instead: str) -> None:
        """Check that rewriting the site changed the conditioning.

        Raises:
            NoEffectError: the site was rewritten, and the conditioning did not change.
        """
        if self.calls and self.activations > 0 and self.conditioning == 0:
            raise NoEffectError(
                expected=f"a site on which the input of {reader} depends",
                found=f"{site}, whose edit has no effect: the activations moved by {self.activations:.3g}, and the "
                f"input of {reader} did not change",
                fix=instead,
            )

    @contextmanager
    def told(self) -> Iterator["Movement"]:
        """Warn at the end of the block if the model ran and nothing changed."""
        yield self
        if self.runs and not self.calls:
            _warn(f"{self.what} was not steered: the model ran {self.runs} times and never computed that site")
        elif self.calls and self.activations == 0:
            _warn(f"steering {self.what} changed nothing, for example because none of the edited latents fired")


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
