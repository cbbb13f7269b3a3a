"""Expand a grid of settings into the dictionaries of a sweep, each with a name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from cliplens.errors import InputError
from cliplens.run.dictionary import training_config
from cliplens.sae import sparsity_fields
from cliplens.settings import Settings

GRID = ("hook", "architecture", "d_sae", "k", "sparsity", "seed")
"""Settings that a sweep varies."""
Grid = Mapping[str, Sequence[Any]]
"""Values of each varied setting; a setting that is missing has the value of the settings."""


@dataclass(frozen=True)
class Cell:
    """One dictionary of a sweep: its name, which is that of its folder, and its settings."""

    name: str
    settings: Settings


def check_grid(settings: Settings, grid: Grid) -> list[str]:
    """Check a grid before anything is opened; return notes on values that no dictionary uses.

    Raises:
        InputError: a value cannot be used, or is given twice.
        UnknownNameError: an architecture is unknown.
    """
    for name, values in grid.items():
        if len(set(values)) < len(values):
            raise InputError(
                expected=f"different values of --{_option(name)}",
                found=", ".join(map(str, values)),
                fix="give each value once",
            )
    notes = []
    for field, place in (("k", 0), ("sparsity", 1)):
        without = [a for a in grid.get("architecture", (settings.architecture,)) if sparsity_fields(a)[place] is None]
        if without and (field in grid or getattr(settings, field) is not None):
            notes.append(f"--{field} has no effect on {', '.join(without)}, which is trained without it")
    for given in _products(settings, grid):
        training_config(given, d_in=1_000_000)
    return notes


def expand(
    settings: Settings, grid: Grid, widths: Mapping[str, int], rows: Mapping[str, int] | None = None
) -> list[Cell]:
    """Return the dictionaries of a grid, in order; combinations that ask for the same dictionary count once.

    Args:
        settings: all settings that are not varied.
        grid: the values of each varied setting.
        widths: width of the activations, d_in, by hook.
        rows: number of rows to train on, by hook, which bounds the default of `d_sae`; None does not bound it.

    Raises:
        InputError: sizes do not fit together, such as `k` above `d_sae`.
    """
    cells: dict[str, Cell] = {}
    for given in _products(settings, grid):
        config = training_config(given, widths[given.hook], None if rows is None else rows[given.hook])
        made = replace(given, d_sae=int(config.d_sae))
        cells.setdefault(name := _name(made, config), Cell(name, made))
    return list(cells.values())


def _products(settings: Settings, grid: Grid) -> Iterator[Settings]:
    seen = set()
    for values in product(*grid.values()):
        given = replace(settings, **dict(zip(grid, values, strict=True)))
        count, penalty = sparsity_fields(given.architecture)
        given = replace(given, k=given.k if count else None, sparsity=given.sparsity if penalty else None)
        varied = tuple(getattr(given, name) for name in GRID)
        if varied not in seen:
            seen.add(varied)
            yield given


def _name(settings: Settings, config: Any) -> str:
    """Return the name of a dictionary, from every setting that a sweep varies."""
    count, _ = sparsity_fields(settings.architecture)
    parts = [settings.hook, settings.architecture, f"d{settings.d_sae}"]
    parts += [f"k{getattr(config, count):g}"] if count else []
    parts += [f"l{settings.sparsity:g}"] if settings.sparsity is not None else []
    return "-".join([*parts, f"s{settings.seed}"]).replace("/", "_")


def _option(name: str) -> str:
    return name.replace("_", "-")
