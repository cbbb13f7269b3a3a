"""Options of the commands: one for each field of `Settings`, and those that several commands share."""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from cliplens.errors import InputError
from cliplens.settings import MACHINE, Settings

_KINDS = get_type_hints(Settings)

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
VARIED = "Varied by the sweep"
_EXAMPLES = {
    "k": "8,16,32",
    "d_sae": "1024,4096",
    "seed": "0,1,2",
    "sparsity": "0.1,1",
    "architecture": "topk,batchtopk",
}
SCORING = ("namer", "vocabulary", "judge", "target", "controls")


def with_settings(
    leave_out: Sequence[str] = (), required: Sequence[str] = (), many: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds an option for each field of `Settings`; the command receives `settings`.

    Options in `many` take several values with commas between them. The command receives those of the options that were
    given as `grid`, by name, and settings with the first value of each.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**options: Any) -> None:
            asked = {name: options.pop(name) for name in names}
            set_threads(options.pop("threads"))
            if many:
                grid = {name: several(name, asked.pop(name)) for name in many if asked[name] is not None}
                first = {name: values[0] for name, values in grid.items()}
                options["grid"] = grid
                asked = {name: value for name, value in asked.items() if name not in many} | first
            settings = Settings(**asked)
            _check_source(settings)
            command(settings=settings, **options)

        own = [p for p in inspect.signature(command).parameters.values() if p.name not in ("settings", "grid")]
        kept = [f for f in fields(Settings) if f.name not in leave_out]
        names = [f.name for f in kept]
        threads = inspect.Parameter("threads", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Threads)
        made = (_several(f) if f.name in many else _parameter(f, f.name in required) for f in kept)
        parameters = [*own, *made, threads]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _check_source(settings: Settings) -> None:
    """Check the columns of the pairs before torch is imported and a model is opened, which takes seconds or minutes."""
    if settings.pairs:
        from cliplens.pairs import check_source

        check_source(settings.pairs, **settings.reading)


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


def _several(setting: Field[Any]) -> inspect.Parameter:
    default = "" if setting.default is None else f" Default: {setting.default}."
    about = f"{setting.metadata['help'].rstrip('.')}. Several values with commas between them.{default}"
    option = typer.Option(help=about, rich_help_panel=VARIED, show_default=False)
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def several(name: str, text: str) -> list[Any]:
    """Return the values of a setting in a text with commas, as numbers where the setting is one.

    Raises:
        InputError: a value is missing, or not of that kind.

    >>> several("k", "4,8"), several("architecture", "topk, batchtopk")
    ([4, 8], ['topk', 'batchtopk'])
    """
    kind = next(k for k in (int, float, str) if k in (_KINDS[name], *get_args(_KINDS[name])))
    values = [value.strip() for value in text.split(",")]
    try:
        if not all(values):
            raise ValueError("an empty value")
        return [kind(value) for value in values]
    except ValueError as error:
        option = name.replace("_", "-")
        raise InputError(
            expected=f"values of --{option} with commas between them",
            found=f"{text!r} ({error})",
            fix=f"pass for example --{option} {_EXAMPLES.get(name, 'first,second')}",
        ) from error


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
