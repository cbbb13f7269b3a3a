"""The command line. Nothing heavy is imported before a command has set its threads."""

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
    """Commands of installed plugins beside our own; a plugin is imported only when its command is asked for."""

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
    """A command whose `--embeddings` takes every file that follows it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _each_file(args))


def _each_file(args: Sequence[str]) -> list[str]:
    """Write `--embeddings A B` as `--embeddings A --embeddings B`.

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
    command.name = name  # a group of commands does not know what it is called here
    return command


app = typer.Typer(
    cls=_PluginCommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Take CLIP apart into features, say to which modality each belongs, name them, and use them.\n\n"
    "Start with [bold]cliplens demo[/]: under a minute, no network. "
    "Then [bold]cliplens run --model ViT-B-32 --pretrained laion2b_s34b_b79k --pairs captions.csv --out run/[/].",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, after any command.")] = False,
) -> None:
    """Options of every command."""


Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default all cores.", rich_help_panel=MACHINE)]
Out = Annotated[Path, typer.Option(help="Folder for everything the run writes.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out; only what is missing or changed is done.")
]
Redo = Annotated[
    bool,
    typer.Option("--redo", help="With --resume: replace results of hours, or of other pairs or another model."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print what would be done and why, write nothing.")
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
SCORING = ("namer", "vocabulary", "judge", "target")


def _with_settings(
    leave_out: Sequence[str] = (), required: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `Settings`; it receives them as `settings`."""

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
    """A bound of a numeric option, as the option's own type: an integer's bound is no float."""
    return setting.metadata.get(end)


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder to write; default a new cliplens-demo.")] = None,
    model: Annotated[
        str, typer.Option(help="world, or world-plain, its twin without single-modality factors.")
    ] = "world",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    threads: Threads = None,
) -> None:
    """The main job on the embedded world: a tiny CLIP and pairs whose factors are known. Under a minute, no network."""
    _set_threads(threads)
    from cliplens.run import run, write_report

    settings = Settings(**{**DEMO_SETTINGS, "model": model, "seed": seed})  # type: ignore[arg-type]
    folder = run(settings, out or _new_folder(Path("cliplens-demo")), until="score")
    if model == "world":
        _plugin_command("steer")([str(folder.path)], standalone_mode=False)
    write_report(folder)
    _tell(folder)


@app.command(name="run", cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout"))
def run_command(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Pairs -> activations -> dictionary -> modality scores -> names -> report, in one folder."""
    _do(settings, out, resume, redo, dry_run)


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout", *TRAINING, *SCORING))
def harvest(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Read activations into --out/activations and stop: for `torchrun --nproc-per-node N -m cliplens harvest ...`."""
    _do(settings, out, resume, redo, dry_run, until="harvest")


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=("sae", "layout", *SCORING))
def train(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Harvest activations and train a dictionary; no scores. `cliplens run --resume` with the same options goes on."""
    _do(settings, out, resume, redo, dry_run, until="train")


@app.command(cls=_ManyFiles)
@_with_settings(leave_out=TRAINING, required=("sae",))
def score(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Score a dictionary made elsewhere: modality, monosemanticity, fidelity, names, report."""
    _do(settings, out, resume, redo, dry_run)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    form: Annotated[str, typer.Option(help="Which report (entry points cliplens.reports).")] = "html",
    rate: Annotated[bool, typer.Option("--rate", help="A blinded page for people to rate latents on.")] = False,
    as_folder: Annotated[
        bool, typer.Option("--folder", help="A page with its pictures as files beside it: for large runs.")
    ] = False,
) -> None:
    """Write the report of a run again, as one file or as a folder, or a page for people to rate its latents on."""
    _set_threads(None)
    from cliplens.run import write_report
    from cliplens.runfolder import RunFolder

    form = "rate" if rate else "folder" if as_folder else form
    console.print(f"Report: {write_report(RunFolder.open(folder), [form])}", soft_wrap=True)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Compare every file of a run with the hashes of what was written; name what is missing or damaged, and the remedy.

    Exits with 1 where something is.
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
    console.print(f"{len(checked):,} files, {parsed:,} of them only read because no hash of them is recorded")
    if bad:
        console.print(f"{len(bad)} missing or damaged. Fix: {run.resume_command(opened)}", soft_wrap=True, markup=False)
        raise typer.Exit(1)
    console.print("All whole.")


@app.command()
def models(
    containing: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
) -> None:
    """What can be hooked, and how deep: heads (everything), blocks, or stages."""
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

    # torchrun with --max-restarts starts the same command again, and that command cannot know of it.
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
    """Before torch is imported: OpenMP reads its settings once, and threads that spin steal each other's time."""
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
    """What lies in the cache, and what does not."""
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
    """Run a command; whatever goes wrong is said in one sentence, and exits with 2 (130 after a signal)."""
    from cliplens.faults import Interrupted, in_words

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted(number)

    with suppress(ValueError, OSError):  # only the main thread may
        signal.signal(signal.SIGTERM, interrupt)
    try:
        command()
    except (Interrupted, KeyboardInterrupt) as stopped:
        number = stopped.number if isinstance(stopped, Interrupted) else signal.SIGINT
        _tell_error("Interrupted", f"by {signal.Signals(number).name}. A run goes on with --resume.")
        sys.exit(128 + number)
    except BrokenPipeError:
        sys.stderr.close()  # what was printed into went away: nothing is left to say
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
    """Run the `cliplens` command. `--debug`, anywhere, shows where an error was raised."""
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        os.environ["CLIPLENS_TRACEBACK"] = "1"
    _guarded(app)
