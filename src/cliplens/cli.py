"""Define the command line. Heavy packages are imported only after a command has set its threads."""

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from functools import wraps
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cliplens.settings import MACHINE, Settings

COMMANDS = "cliplens.commands"
DEMO_PAIRS = 12288
DEMO_SETTINGS = {"model": "world", "pairs": f"world:{DEMO_PAIRS}", "d_sae": 256, "k": 8, "samples": 409_600}
console = Console(highlight=False)


class _PluginCommands(TyperGroup):
    """Adds the commands of installed plugins. A plugin is imported only when its command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(e.name for e in entry_points(group=COMMANDS))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if not any(e.name == cmd_name for e in entry_points(group=COMMANDS)):
            return None
        return _plugin_command(cmd_name)


class _ManyFiles(TyperCommand):
    """A command whose `--embeddings` accepts several files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _each_file(args))


def _each_file(args: Sequence[str]) -> list[str]:
    """Rewrite `--embeddings A B` as `--embeddings A --embeddings B`.

    >>> _each_file(["--embeddings", "a.npy", "b.npy", "--k", "8"])
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


def _plugin_command(name: str) -> Any:
    from cliplens import registry

    command = get_command(registry.find("commands", name).make(typer.Typer))
    command.name = name  # a plugin's group of commands has no name of its own
    return command


app = typer.Typer(
    cls=_PluginCommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train sparse dictionaries on CLIP models, score the modality of each latent, name latents, and steer models "
    "with them.\n\n"
    "Start with [bold]cliplens demo[/], which takes under a minute and needs no network. "
    "Then try [bold]cliplens run --model ViT-B-32 --pretrained laion2b_s34b_b79k --pairs captions.csv --out run/[/].",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, after any command.")] = False,
) -> None:
    """Set the options of every command."""


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


def _with_settings(
    leave_out: Sequence[str] = (), required: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds an option for each field of `Settings`; the command receives `settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**options: Any) -> None:
            asked = {name: options.pop(name) for name in names}
            _set_threads(options.pop("threads"))
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


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write; default cliplens-demo, or cliplens-demo-2, ...")
    ] = None,
    model: Annotated[
        str, typer.Option(help="world, or world-plain, the same model without single-modality factors.")
    ] = "world",
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    threads: Threads = None,
) -> None:
    """Run everything on the embedded world, a tiny CLIP with pairs whose factors are known.

    Takes under a minute and needs no network.

    Example: cliplens demo --out runs/demo
    """
    _set_threads(threads)
    from cliplens.run import run, write_report

    settings = Settings(**{**DEMO_SETTINGS, "model": model, "seed": seed})  # type: ignore[arg-type]
    folder = run(settings, out or _new_folder(Path("cliplens-demo")), until="name")
    if model == "world":
        _plugin_command("steer")([str(folder.path)], standalone_mode=False)
    write_report(folder)
    _tell(folder)


@app.command(name="run", cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout"))
def run_command(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Harvest activations, train a dictionary, score and name its latents, and write a report, in one folder.

    Example: cliplens run --model ViT-B-32 --pretrained laion2b_s34b_b79k --pairs captions.csv --out runs/first

    Without any data: cliplens run --pairs world:4096 --out runs/world
    """
    _do(settings, out, resume, redo, dry_run)


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout", *TRAINING, *SCORING))
def harvest(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Harvest activations into --out/activations, and stop. Several processes can share the work.

    Example: torchrun --nproc-per-node 4 -m cliplens harvest --model ViT-B-32 --pairs captions.csv --out runs/first
    """
    _do(settings, out, resume, redo, dry_run, until="harvest")


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout", *SCORING))
def train(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Harvest activations and train a dictionary, without scores. Continue with `cliplens run --resume`.

    Example: cliplens train --pairs world:4096 --d-sae 512 --out runs/world
    """
    _do(settings, out, resume, redo, dry_run, until="train")


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=(*TRAINING, "controls"), required=("sae",))
def score(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Score and name the latents of an existing dictionary on all pairs, and write a report.

    Example: cliplens score --sae my-sae/ --model ViT-B-32 --pairs captions.csv --out runs/scored
    """
    _do(settings, out, resume, redo, dry_run)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    form: Annotated[str, typer.Option(help="Kind of report: html, folder, rate, or that of a plugin.")] = "html",
    rate: Annotated[
        bool, typer.Option("--rate", help="Write a page for blind rating of latents; the same as --form rate.")
    ] = False,
    as_folder: Annotated[
        bool,
        typer.Option("--folder", help="Write the pictures as separate files, for large runs; same as --form folder."),
    ] = False,
) -> None:
    """Write the report of a run again, as one file or as a folder, or write a page for rating its latents.

    Example: cliplens report runs/first --folder
    """
    _set_threads(None)
    from cliplens.run import write_report
    from cliplens.runfolder import RunFolder

    form = "rate" if rate else "folder" if as_folder else form
    console.print(f"Report: {write_report(RunFolder.open(folder), [form])}", soft_wrap=True)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Run folder to check.")]) -> None:
    """Compare every file of a run with its recorded hash; list missing and damaged files and how to repair them.

    The exit code is 1 if any file is missing or damaged.

    Example: cliplens verify runs/first
    """
    _set_threads(None)
    from cliplens import run
    from cliplens.runfolder import RunFolder

    opened = RunFolder(folder)
    if not opened.toml.exists() and not (folder / "steps.json").exists():
        RunFolder.open(folder)
    checked = run.verify(opened)
    bad = [one for one in checked if one.problem]
    for one in bad:
        console.print(f"[red]{one.name}[/] {one.problem}", soft_wrap=True)
    parsed = sum(not one.known for one in checked)
    console.print(f"{len(checked):,} files checked, {parsed:,} of them only by reading, because no hash is recorded")
    if bad:
        console.print(f"{len(bad)} missing or damaged. Fix: run")
        for command in run.fixes(opened, checked):
            console.print(command, soft_wrap=True, markup=False)
        raise typer.Exit(1)
    console.print("No file is missing or damaged.")


@app.command()
def models(
    containing: Annotated[str, typer.Argument(help="Show only names that contain this text.")] = "",
) -> None:
    """List the models that can be hooked, and which hooks they have: heads (all hooks), blocks, or stages.

    Example: cliplens models ViT-B
    """
    _set_threads(None)
    from cliplens import registry
    from cliplens.contracts import ModelSource

    table = Table("model", "vision", "hooks", "text", "hooks", "pretrained tags", title=None, box=None)
    for _, source in registry.made("models", ModelSource):
        for card in source.models():
            if containing.casefold() in card.name.casefold():
                tags = ", ".join(card.pretrained[:3]) + (
                    f" and {len(card.pretrained) - 3} more" if len(card.pretrained) > 3 else ""
                )
                table.add_row(
                    card.name,
                    card.vision_family,
                    card.vision_level or "-",
                    card.text_family,
                    card.text_level or "-",
                    tags,
                )
    console.print(table)


def _do(
    settings: Settings,
    out: Path,
    resume: bool,
    redo: bool,
    dry_run: bool,
    until: Literal["harvest", "train", "report"] = "report",
) -> None:
    from cliplens import run

    # torchrun --max-restarts repeats the same command, which must then resume.
    resume = resume or redo or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if dry_run:
        _tell_plan(run.dry_run(settings, out, resume=resume, redo=redo, until=until))
        return
    folder = run.run(settings, out, resume=resume, redo=redo, until=until)
    if os.environ.get("RANK", "0") == "0":
        _tell(folder)


def _tell_plan(plan: Any) -> None:
    checked = plan.checked
    console.print(f"{len(checked.pairs):,} pairs from {checked.settings.pairs}", soft_wrap=True)
    console.print("Sites: " + ", ".join(str(site.site) for site in checked.harvest.sites), soft_wrap=True)
    table = Table("step", "what", "why", "writes", box=None)
    for row in plan.rows():
        table.add_row(*row)
    console.print(table)
    console.print("Nothing was written.")


def _new_folder(wanted: Path) -> Path:
    number = 1
    folder = wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _set_threads(threads: int | None) -> None:
    """Set the number of threads. Call this before importing torch, because OpenMP reads its settings only once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def _tell(folder: Any) -> None:
    from cliplens.files import read_json
    from cliplens.records import WARNING

    if not folder.summary.exists():
        made = folder.sae if folder.sae.exists() else folder.activations
        console.print(f"[bold]{made.name.capitalize()}[/] {made}{_harvested(folder)}", soft_wrap=True)
        return
    found = read_json(folder.summary)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in _headlines(found):
        table.add_row(label, value)
    notes = read_json(folder.findings)["notes"]
    for note in notes:
        if note.startswith(WARNING):
            console.print(f"[bold red]{escape(note)}[/]", soft_wrap=True)
    console.print(table)
    for note in notes:
        if not note.startswith(WARNING):
            console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    console.print(f"[bold]Report[/] {folder.report}", soft_wrap=True)


def _harvested(folder: Any) -> str:
    """Return a summary of the harvested activations."""
    from cliplens.files import read_json

    found = read_json(folder.activations / "manifest.json")
    bad = f", {found['bad']} bad ones left out ({folder.quarantine})" if found["bad"] else ""
    cut = f", {found['truncated']} captions cut to the context" if found["truncated"] else ""
    return f": {found['rows']:,} pairs at {len(found['sites'])} sites, {found['bytes'] / 1e6:,.1f} MB{bad}{cut}"


def _headlines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def number(name: str) -> str:
        value = found.get(name)
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"

    bad = f", {found['quarantined']} quarantined" if found.get("quarantined") else ""
    classes = ", ".join(f"{number(c)} {c}" for c in ("ImgD", "TextD", "CrossD") if c in found)
    return [
        ("Pairs", f"{number('pairs')}{bad}"),
        ("Latents", f"{number('alive')} alive of {number('d_sae')}, {number('l0')} firing per sample"),
        (
            "Explained variance",
            " ".join(
                f"{label} {number(name)}"
                for label, name in (
                    ("both", "explained_variance"),
                    ("image", "explained_variance_image"),
                    ("text", "explained_variance_text"),
                )
                if name in found
            ),
        ),
        ("Modality", classes or "one modality only"),
        (
            "Seconds",
            f"{sum(found['seconds'].values()):.1f} ("
            + ", ".join(f"{k} {v:.1f}" for k, v in found["seconds"].items())
            + ")",
        ),
    ]


def _guarded(command: Callable[[], Any]) -> None:
    """Run a command. Print any error in one sentence and exit with 2; exit with 128 + its number after a signal."""
    from cliplens.faults import Interrupted, in_words

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    with suppress(ValueError, OSError):  # only the main thread may set signal handlers
        signal.signal(signal.SIGTERM, interrupt)
    try:
        command()
    except (Interrupted, KeyboardInterrupt) as stopped:
        number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
        _tell_error("Interrupted", f"by {signal.Signals(number).name}. Continue a run with --resume.")
        sys.exit(128 + number)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output is gone, so print nothing more
        sys.exit(1)
    except Exception as error:
        if os.environ.get("CLIPLENS_TRACEBACK"):
            traceback.print_exc()
        said = in_words(error)
        _tell_error(type(said).__name__, str(said))
        sys.exit(2)


def _tell_error(kind: str, words: str) -> None:
    Console(stderr=True, highlight=False).print(f"[red]{kind}[/] ", end="")
    sys.stderr.write(f"{words}\n")


def main() -> None:
    """Run the `cliplens` command. `--debug` at any position shows the traceback of an error."""
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        os.environ["CLIPLENS_TRACEBACK"] = "1"
    _guarded(app)
