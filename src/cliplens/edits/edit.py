"""Define the record of an edit, which is checked when it is created."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from cliplens.errors import InputError, unknown_name

POSITIONS = ("all", "special", "others", "content")
WHERE = ("all", "firing")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "add": ("where", "positions"),
    "set": ("where", "positions"),
    "scale": ("positions",),
    "clamp": ("low", "high", "positions"),
    "ablate": ("positions",),
    "replace": ("targets", "positions"),
    "swap": ("positions",),
}
"""Names of the options of each operation."""


@dataclass(frozen=True)
class Edit:
    """A change of the codes of some latents.

    >>> Edit("add", (17,), 4.0)
    Edit(operation='add', latents=(17,), strength=4.0, options={})

    Raises:
        UnknownNameError: the operation is unknown.
        InputError: there is no latent, a latent is not a whole number from 0, the strength is not finite, or the
            operation has no such option.
    """

    operation: str
    """add, set, scale, clamp, ablate, replace or swap; `cliplens.edits.operations` defines each."""
    latents: tuple[int, ...]
    strength: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    """`positions`, `where`, and the bounds of a clamp (`low`, `high`) or the `targets` of a replace."""

    @classmethod
    def from_json(cls, operation: Any, latents: Any, strength: Any, options: Any) -> "Edit":
        """Return the edit with four values read from JSON, after checking their types.

        Raises:
            UnknownNameError: the operation or an option is unknown.
            InputError: a value has a wrong type or is out of range.
        """
        if not isinstance(options, Mapping):
            raise InputError(
                expected="options by name", found=repr(options), fix="write {} for an edit without options"
            )
        return cls(str(operation), _latents(latents), _finite("strength", strength), dict(options))

    def __post_init__(self) -> None:
        if self.operation not in OPTIONS:
            raise unknown_name("operation", str(self.operation), OPTIONS)
        latents, options = _latents(self.latents), {k: _OPTION[k](v) for k, v in self._known_options()}
        if not latents and self.operation != "replace":
            raise InputError(expected="at least one latent to edit", found="none", fix="pass for example latents=[17]")
        if self.operation == "replace" and not options.get("targets"):
            raise InputError(
                expected="at least one target latent", found="none", fix="pass targets, or use ablate to set codes to 0"
            )
        if self.operation == "clamp":
            _check_bounds(options.get("low"), options.get("high"))
        object.__setattr__(self, "latents", latents)
        object.__setattr__(self, "strength", _finite("strength", self.strength))
        object.__setattr__(self, "options", options)

    def _known_options(self) -> list[tuple[str, Any]]:
        for name in self.options:
            if name not in OPTIONS[self.operation]:
                raise unknown_name(f"option of {self.operation}", str(name), OPTIONS[self.operation])
        return [(name, value) for name, value in self.options.items() if value is not None]


def check_latents(edit: Edit, d_sae: int) -> Edit:
    """Return the edit if a dictionary with `d_sae` latents has all of its latents.

    Raises:
        InputError: a latent is not in the dictionary.
    """
    named = (*edit.latents, *edit.options.get("targets", ()))
    outside = [k for k in named if k >= d_sae]
    if outside:
        raise InputError(
            expected=f"latents from 0 to {d_sae - 1}",
            found=f"latent {outside[0]}",
            fix="choose latents of this dictionary",
        )
    return edit


def _latents(given: Any) -> tuple[int, ...]:
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__"):
        raise InputError(expected="a list of latents", found=repr(given), fix="pass latents by number, such as [17]")
    return tuple(dict.fromkeys(_whole("latent", k, least=0) for k in given))


def _whole(what: str, given: Any, least: int | None = None) -> int:
    if isinstance(given, bool) or not isinstance(given, Integral) or (least is not None and int(given) < least):
        wanted = f"a {what} that is a whole number" + ("" if least is None else f" from {least}")
        raise InputError(expected=wanted, found=repr(given), fix=f"pass each {what} as a whole number, such as 17")
    return int(given)


def _finite(what: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise InputError(expected=f"a finite {what}", found=repr(given), fix=f"pass the {what} as a number such as 4.0")
    return float(given)


def _check_bounds(low: float | None, high: float | None) -> None:
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise InputError(
            expected="low, high, or both with low <= high",
            found=f"low={low}, high={high}",
            fix="pass at least one bound, and low <= high",
        )


def _positions(given: Any) -> str | tuple[int, ...]:
    if isinstance(given, str):
        if given not in POSITIONS:
            raise InputError(
                expected=f"positions as one of {', '.join(POSITIONS)}, or as a list of whole numbers",
                found=repr(given),
                fix=f"pass one of {', '.join(POSITIONS)}, or a list such as [0, 1]",
            )
        return given
    if isinstance(given, Mapping) or not hasattr(given, "__iter__"):
        raise InputError(expected="a list of positions", found=repr(given), fix="pass a list such as [0, 1]")
    chosen = tuple(_whole("position", p) for p in given)
    if not chosen:
        raise InputError(expected="at least one position", found="none", fix="remove positions to edit all of them")
    return chosen


def _where(given: Any) -> str:
    if given not in WHERE:
        raise InputError(expected="where as 'all' or 'firing'", found=repr(given), fix="pass 'all' or 'firing'")
    return str(given)


_OPTION: Mapping[str, Callable[[Any], Any]] = {
    "positions": _positions,
    "where": _where,
    "low": lambda v: _finite("lower bound", v),
    "high": lambda v: _finite("upper bound", v),
    "targets": _latents,
}
