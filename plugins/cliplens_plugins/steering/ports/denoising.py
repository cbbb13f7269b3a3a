"""Control the denoiser's input: windows in time, and a check that its conditioning was steered."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from cliplens.errors import InputError, NoEffectError
from cliplens_plugins.steering.ports.compiled import before_call
from cliplens_plugins.steering.ports.movement import Movement, tensors_in

Window = tuple[float, float]
"""Start and end as fractions of the noise schedule: (0, 1) is all of it, (0, 0.3) its noisiest 30 %."""
DENOISERS = ("unet", "transformer", "prior", "decoder")
_SCHEDULERS = ("scheduler", "prior_scheduler", "decoder_scheduler")
_OPEN = "_cliplens_window"
_REMEMBERED = 8


def denoiser_of(pipeline: Any, name: str | None = None) -> nn.Module | None:
    """Return the denoising network, by attribute name or the first found; None without one."""
    for attribute in (name,) if name else DENOISERS:
        found = getattr(pipeline, attribute, None)
        if isinstance(found, nn.Module):
            return found
    return None


class Conditioning:
    """The steered conditioning of one context, and the corresponding unsteered one.

    A hook at the denoiser's input refuses conditioning that was not steered and, outside the window, replaces steered
    conditioning with the unsteered one, row by row.
    """

    def __init__(
        self, pipeline: Any, denoiser: nn.Module, movement: Movement, site: str, window: Window | None, stack: ExitStack
    ) -> None:
        self.window, self._movement, self._site = window, movement, site
        self.fresh = True
        """Whether the denoiser has not run since the last prompt was encoded."""
        self._ready = False
        self._found = False
        """Whether the denoiser's input held steered conditioning, at its last call outside the window."""
        self._first: float | None = None
        self._last: float | None = None
        self._made: list[Tensor] = []
        self._rows: list[tuple[Tensor, Tensor]] = []
        self._swapped: list[tuple[Tensor, Tensor]] = []
        scheduler = next(found for name in _SCHEDULERS if (found := getattr(pipeline, name, None)) is not None)
        # Flux passes times from 0 to 1 to its network; other pipelines pass steps of the training schedule.
        of_one = type(denoiser).__name__.startswith("Flux")
        self._steps = 1 if of_one else int(getattr(scheduler.config, "num_train_timesteps", 1000))
        if window is not None:
            _claim_window(pipeline, stack)
        before_call(denoiser, self._at_the_input, stack)

    def remember(self, steered: Any, plain: Any | None) -> None:
        """Keep steered conditioning, and the unsteered one if a window needs it."""
        self.accept()
        new = tensors_in(steered)
        self._made = [*self._made, *new][-_REMEMBERED * max(1, len(new)) :]
        if self.window is not None and plain is not None:
            self._rows = list(zip(new, tensors_in(plain), strict=True))
            self._swapped = []

    def accept(self) -> None:
        """Allow the next denoising, because its conditioning was steered."""
        self._ready = True

    def _begins(self, timestep: float) -> bool:
        """Return whether this timestep begins a new denoising."""
        return self._first is None or self._last is None or (timestep >= self._first and timestep > self._last)

    def made_here(self, given: Shaped[Tensor, "..."]) -> bool:
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
        self._found = False
        plain = tuple(self._plain(a) for a in args), {name: self._plain(v) for name, v in kwargs.items()}
        self._refuse_unfound(denoiser)
        return plain

    def _time(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """Return the noise level at which the denoiser is called, from 1 (noise) to 0 (image)."""
        if "timestep_ratio" in kwargs:
            return float(torch.as_tensor(kwargs["timestep_ratio"]).float().max())
        given = kwargs["timestep"] if "timestep" in kwargs else args[1]
        return float(torch.as_tensor(given).float().max()) / self._steps

    def _refuse_unsteered(self) -> None:
        if not self._ready:
            raise NoEffectError(
                expected=f"a call in which {self._site} runs, so that it can be steered",
                found="conditioning that was computed before, outside the steering context",
                fix="pass the prompt or the image itself in place of prompt_embeds, image_embeds or "
                "ip_adapter_image_embeds",
            )

    def _refuse_unfound(self, denoiser: nn.Module) -> None:
        if not self._found:
            raise InputError(
                expected="a denoiser that is given the encoded conditioning itself, where a window is given",
                found=f"{type(denoiser).__name__}, which is given something computed from it",
                fix="leave the window out",
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
                self._found = True
                return swapped
        swapped = self._restored(value)
        if swapped is not value:
            # Pipelines pass the same tensor at every step, so this is computed once per call.
            self._swapped.append((value, swapped))
        return swapped

    def _restored(self, value: Tensor) -> Tensor:
        result = value
        for row, original in _rows_like(value, self._rows):
            same = (value.flatten(1) == row.to(value)).all(1)
            if bool(same.any()):
                self._found = True
                result = result.clone() if result is value else result
                result[same] = original.to(value).reshape(value.shape[1:])
        return result


def check_window(window: Window | None) -> None:
    """Check that a window (from, to) is a part of [0, 1].

    Raises:
        InputError: 0 <= from < to <= 1 does not hold.
    """
    if window is not None and not 0.0 <= window[0] < window[1] <= 1.0:
        raise InputError(
            expected="a window (from, to) with 0 <= from < to <= 1",
            found=str(window),
            fix="pass for example (0.0, 0.5)",
        )


def _rows_like(value: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the steered and unsteered tensors whose rows have as many numbers as those of `value`."""
    for steered, plain in pairs:
        if _is_like(value, steered):
            yield from zip(steered.flatten(1), plain.flatten(1), strict=True)


def _is_like(value: Tensor, steered: Tensor) -> bool:
    """Return whether the rows of two tensors have equally many numbers."""
    if min(value.ndim, steered.ndim) < 2 or not len(value) or steered.shape[-1] != value.shape[-1]:
        return False
    return steered[0].numel() == value[0].numel()


def _claim_window(pipeline: Any, stack: ExitStack) -> None:
    if _OPEN in pipeline.__dict__:
        raise InputError(
            expected="one steering window on a pipeline",
            found="a second window inside the first",
            fix="put both edits into one steering, or remove one window",
        )
    pipeline.__dict__[_OPEN] = True
    stack.callback(pipeline.__dict__.pop, _OPEN)
