"""Options of the commands: one for each field of `Settings`, and those that several commands share."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cliplens.settings import MACHINE, Settings

Threads = Annotated[
    int | None, typer.Option(min=1, help="Number of CPU threads; default all cores.", rich_help_panel=MACHINE)
]
Out = Annotated[Path, typer.Option(help="Run folder to write, such as runs/first.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out: do only the steps that are missing or changed.")
]
Redo = Annotated[
    bool,
    typer.Option(
        "--redo",
        help="Continue the run in --out even if that replaces hours of work, or results of other pairs or another "
        "model.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print which steps would run and why; write nothing.")
]
TRAINING = (
    "architecture",
    "d_sae",
    "k",
    "sparsity",
    "samples",
    "batch_size",
    "lr",
    "centre",
    "held_out",
    "wandb_project",
)
SCORING = ("namer", "vocabulary", "judge", "target", "controls")


def with_settings(
    leave_out: Sequence[str] = (), required: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds an option for each field of `Settings`; the command receives `settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**options: Any) -> None:
            asked = {name: options.pop(name) for name in names}
            set_threads(options.pop("threads"))
            command(settings=Settings(**asked), **options)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "settings"]
        kept = [f for f in fields(Settings) if f.name not in leave_out]
        names = [f.name for f in kept]
        threads = inspect.Parameter("threads", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Threads)
        parameters = [*own, *(_parameter(f, f.name in required) for f in kept), threads]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _parameter(setting: Field[Any], required: bool) -> inspect.Parameter:
    annotation = Annotated[
        setting.type,
        typer.Option(
            help=setting.metadata["help"],
            rich_help_panel=setting.metadata["group"],
            min=_bound(setting, "min"),
            max=_bound(setting, "max"),
        ),
    ]
    default = inspect.Parameter.empty if required or setting.default is MISSING else setting.default
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _bound(setting: Field[Any], end: str) -> int | None:
    """Return a bound of a numeric option, in the type of the option."""
    return setting.metadata.get(end)


def set_threads(threads: int | None) -> None:
    """Set the number of threads. Call this before importing torch, because OpenMP reads its settings only once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


class ManyFiles(TyperCommand):
    """A command whose `--embeddings` accepts several files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, each_file(args))


def each_file(args: Sequence[str]) -> list[str]:
    """Rewrite `--embeddings A B` as `--embeddings A --embeddings B`.

    >>> each_file(["--embeddings", "a.npy", "b.npy", "--k", "8"])
    ['--embeddings', 'a.npy', '--embeddings', 'b.npy', '--k', '8']
    """
    out: list[str] = []
    within = False
    for arg in args:
        if within and not arg.startswith("-") and out[-1] != "--embeddings":
            out.append("--embeddings")
        within = arg == "--embeddings" or (within and not arg.startswith("-"))
        out.append(arg)
    return out
