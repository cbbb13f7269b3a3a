"""Define the command line. Heavy packages are imported only after a command has set its threads."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.main import get_command

from cliplens import __version__
from cliplens.cli.guard import guarded
from cliplens.cli.options import (
    SCORING,
    TRAINING,
    DryRun,
    ManyFiles,
    Out,
    Redo,
    Resume,
    Threads,
    set_threads,
    with_settings,
)
from cliplens.cli.sweep import sweep
from cliplens.cli.telling import console, tell, tell_plan
from cliplens.settings import Settings
from cliplens.terminal import print_table

COMMANDS = "cliplens.commands"
DEMO_PAIRS = 12288
DEMO_SETTINGS = {"model": "world", "pairs": f"world:{DEMO_PAIRS}", "d_sae": 256, "k": 8, "samples": 409_600}


class _PluginCommands(TyperGroup):
    """Adds the commands of installed plugins. A plugin is imported only when its command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(e.name for e in entry_points(group=COMMANDS))]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), n=3)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        if not any(e.name == cmd_name for e in entry_points(group=COMMANDS)):
            return None
        return _plugin_command(cmd_name)


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


def _show_version(asked: bool) -> bool:
    if asked:
        console.print(f"cliplens {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, after any command.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Set the options of every command."""


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
    set_threads(threads)
    from cliplens.run import run, write_report

    settings = Settings(**{**DEMO_SETTINGS, "model": model, "seed": seed})  # type: ignore[arg-type]
    folder = run(settings, out or _new_folder(Path("cliplens-demo")), until="name")
    if model == "world":
        _plugin_command("steer")([str(folder.path)], standalone_mode=False)
    write_report(folder)
    tell(folder)


@app.command(name="run", cls=ManyFiles)
@with_settings(leave_out=("sae", "layout"))
def run_command(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Harvest activations, train a dictionary, score and name its latents, and write a report, in one folder.

    Example: cliplens run --model ViT-B-32 --pretrained laion2b_s34b_b79k --pairs captions.csv --out runs/first

    Without any data: cliplens run --pairs world:4096 --out runs/world
    """
    _do(settings, out, resume, redo, dry_run)


@app.command(cls=ManyFiles)
@with_settings(leave_out=("sae", "layout", *TRAINING, *SCORING))
def harvest(
    *, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False
) -> None:
    """Harvest activations into --out/activations, and stop. Several processes can share the work.

    Example: torchrun --nproc-per-node 4 -m cliplens harvest --model ViT-B-32 --pairs captions.csv --out runs/first
    """
    _do(settings, out, resume, redo, dry_run, until="harvest")


@app.command(cls=ManyFiles)
@with_settings(leave_out=("sae", "layout", *SCORING))
def train(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Harvest activations and train a dictionary, without scores. Continue with `cliplens run --resume`.

    Example: cliplens train --pairs world:4096 --d-sae 512 --out runs/world
    """
    _do(settings, out, resume, redo, dry_run, until="train")


@app.command(cls=ManyFiles)
@with_settings(leave_out=(*TRAINING, "controls"), required=("sae",))
def score(*, settings: Settings, out: Out, resume: Resume = False, redo: Redo = False, dry_run: DryRun = False) -> None:
    """Score and name the latents of an existing dictionary on all pairs, and write a report.

    Example: cliplens score --sae my-sae/ --model ViT-B-32 --pairs captions.csv --out runs/scored
    """
    _do(settings, out, resume, redo, dry_run)


app.command(cls=ManyFiles)(sweep)


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
    set_threads(None)
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
    set_threads(None)
    from cliplens import run
    from cliplens.runfolder import RunFolder

    opened = RunFolder(folder)
    swept = run.SweepFolder(folder)
    if not opened.toml.exists() and not (folder / "steps.json").exists() and not swept.toml.exists():
        RunFolder.open(folder)
    checked = run.verify_sweep(swept) if swept.toml.exists() else run.verify(opened)
    bad = [one for one in checked if one.problem]
    for one in bad:
        console.print(f"[red]{escape(one.name)}[/] {escape(str(one.problem))}", soft_wrap=True)
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
    set_threads(None)
    from cliplens import registry
    from cliplens.contracts import ModelSource
    from cliplens.errors import unknown_name

    names: list[str] = []
    lines = []
    for _, source in registry.made("models", ModelSource):
        for card in source.models():
            names.append(card.name)
            if containing.casefold() in card.name.casefold():
                tags = ", ".join(card.pretrained[:3]) + (
                    f" and {len(card.pretrained) - 3} more" if len(card.pretrained) > 3 else ""
                )
                vision, text = (card.vision_level or "-", card.text_level or "-")
                lines.append([card.name, card.vision_family, vision, card.text_family, text, tags])
    if not lines:
        raise unknown_name("model", containing, names)
    print_table(["model", "vision", "hooks", "text", "hooks", "pretrained tags"], lines, console=console)


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
        tell_plan(run.dry_run(settings, out, resume=resume, redo=redo, until=until))
        return
    folder = run.run(settings, out, resume=resume, redo=redo, until=until)
    if os.environ.get("RANK", "0") == "0":
        tell(folder)


def _new_folder(wanted: Path) -> Path:
    number = 1
    folder = wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def can_resume(arguments: Sequence[str]) -> bool:
    """Return whether the command in these arguments of the command line has the option --resume.

    >>> can_resume(["--debug", "harvest", "--out", "run/"]), can_resume(["models"])
    (True, False)
    """
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    return command is not None and any(option.name == "resume" for option in command.params)


def main() -> None:
    """Run the `cliplens` command. `--debug` at any position shows the traceback of an error."""
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        os.environ["CLIPLENS_TRACEBACK"] = "1"
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of SAELens and others; tqdm reads it when it is imported
    guarded(app, can_resume=lambda: can_resume(sys.argv[1:]))
