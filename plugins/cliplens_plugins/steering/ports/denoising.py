"""The denoiser's input: windows in time, and a check that the conditioning it gets was steered."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from cliplens.errors import InputError, NoEffectError
from cliplens_plugins.steering.ports.compiled import before_call
from cliplens_plugins.steering.ports.movement import Movement, tensors_in

Window = tuple[float, float]
"""From and to, as fractions of the noise schedule: (0, 1) is all of it, (0, 0.3) the noisiest third."""
DENOISERS = ("unet", "transformer", "prior")
_OPEN = "_cliplens_window"
_REMEMBERED = 8


def denoiser_of(pipeline: Any, name: str | None = None) -> nn.Module | None:
    """Return the network that removes the noise, by name or the first there is; None without one."""
    for attribute in (name,) if name else DENOISERS:
        found = getattr(pipeline, attribute, None)
        if isinstance(found, nn.Module):
            return found
    return None


class Conditioning:
    """The steered conditioning of one context, and the plain one it stands for.

    At the denoiser's input it refuses to run on conditioning that was not steered and, outside the window, puts the
    plain conditioning back row by row.
    """

    def __init__(
        self, pipeline: Any, denoiser: nn.Module, movement: Movement, site: str, window: Window | None, stack: ExitStack
    ) -> None:
        self.window, self._movement, self._site = window, movement, site
        self.fresh = True
        """Whether the denoiser has not run since the last prompt was encoded."""
        self._ready = False
        self._first: float | None = None
        self._last: float | None = None
        self._made: list[Tensor] = []
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._swapped: list[tuple[Tensor, Tensor]] = []
        scheduler = getattr(pipeline, "scheduler", None) or pipeline.prior_scheduler
        # Flux gives its network times from 0 to 1; others count the scheduler's training steps.
        of_one = type(denoiser).__name__.startswith("Flux")
        self._steps = 1 if of_one else int(getattr(scheduler.config, "num_train_timesteps", 1000))
        if window is not None:
            _claim_window(pipeline, stack)
        before_call(denoiser, self._at_the_input, stack)

    def remember(self, steered: Any, plain: Any | None) -> None:
        """Keep steered conditioning, and the plain one where a window needs it."""
        self.accept()
        new = tensors_in(steered)
        self._made = [*self._made, *new][-_REMEMBERED * max(1, len(new)) :]
        if self.window is not None and plain is not None:
            self._rows = list(zip(new, tensors_in(plain), strict=True))
            self._swapped = []

    def accept(self) -> None:
        """Let the next denoising run: its conditioning was steered."""
        self._ready = True

    def _begins(self, timestep: float) -> bool:
        """Return whether this timestep begins another denoising than the one before."""
        return self._first is None or self._last is None or (timestep >= self._first and timestep > self._last)

    def made_here(self, given: Tensor) -> bool:
        """Return whether a tensor is conditioning that was steered in this context."""
        return any(t.shape == given.shape and torch.equal(t, given.detach().to(t)) for t in self._made)

    def _at_the_input(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.fresh = True
        self._movement.runs += 1
        timestep = self._time(args, kwargs)
        if self._begins(timestep):
            self._refuse_unsteered()
            self._first, self._ready = timestep, False
        self._last = timestep
        if self.window is None:
            return None
        progress = 1.0 - timestep
        start, stop = self.window
        if start <= progress < stop or (stop >= 1.0 and progress >= start):
            return None
        return tuple(self._plain(a) for a in args), {name: self._plain(v) for name, v in kwargs.items()}

    def _time(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """Return the noise level the denoiser is called at, from 1 (noise) to 0 (picture)."""
        if "timestep_ratio" in kwargs:
            return float(torch.as_tensor(kwargs["timestep_ratio"]).float().max())
        given = kwargs["timestep"] if "timestep" in kwargs else args[1]
        return float(torch.as_tensor(given).float().max()) / self._steps

    def _refuse_unsteered(self) -> None:
        if not self._ready:
            raise NoEffectError(
                expected=f"a call in which {self._site} runs, so that it can be steered",
                found="conditioning that was made already, outside the steering: the site never ran",
                fix="give the prompt or the picture itself in place of prompt_embeds, image_embeds or "
                "ip_adapter_image_embeds",
            )

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._plain(v) for name, v in value.items()}
        if isinstance(value, list):
            return [self._plain(v) for v in value]
        if not isinstance(value, Tensor) or not any(_is_like(value, steered) for steered, _ in self._rows):
            return value
        for seen, swapped in self._swapped:
            if seen is value:
                return swapped
        swapped = self._restored(value)
        # Pipelines hand the same tensor to every step, so this is computed once per call.
        self._swapped.append((value, swapped))
        return swapped

    def _restored(self, value: Tensor) -> Tensor:
        result = value
        for row, original in _rows_like(value, self._rows):
            same = (value.flatten(1) == row.to(value)).all(1)
            if bool(same.any()):
                result = result.clone() if result is value else result
                result[same] = original.to(value).reshape(value.shape[1:])
        return result


def check_window(window: Window | None) -> None:
    """Refuse a window that is no part of [0, 1].

    Raises:
        InputError: not 0 <= from < to <= 1.
    """
    if window is not None and not 0.0 <= window[0] < window[1] <= 1.0:
        raise InputError(
            expected="a window (from, to) with 0 <= from < to <= 1",
            found=str(window),
            fix="give for example (0.0, 0.5)",
        )


def _rows_like(value: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield steered and plain rows of as many numbers as the rows of `value`."""
    for steered, plain in pairs:
        if _is_like(value, steered):
            yield from zip(steered.flatten(1), plain.flatten(1), strict=True)


def _is_like(value: Tensor, steered: Tensor) -> bool:
    """Return whether the rows of two tensors have as many numbers."""
    if min(value.ndim, steered.ndim) < 2 or not len(value) or steered.shape[-1] != value.shape[-1]:
        return False
    return steered[0].numel() == value[0].numel()


def _claim_window(pipeline: Any, stack: ExitStack) -> None:
    if _OPEN in pipeline.__dict__:
        raise InputError(
            expected="one window in time on a pipeline",
            found="a second one inside the first",
            fix="put both edits into one steering, or leave one window out",
        )
    pipeline.__dict__[_OPEN] = True
    stack.callback(pipeline.__dict__.pop, _OPEN)
