"""`cliplens sweep`: many dictionaries on one harvest."""

import os
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from cliplens.cli.options import DryRun, Out, Redo, Resume, with_settings
from cliplens.cli.telling import console
from cliplens.settings import Settings
from cliplens.terminal import print_table, say

VARY = ("hook", "architecture", "d_sae", "k", "sparsity", "seed")
"""`cliplens.run.grid.GRID`, which a help text may not import."""
_WARNED = 6
"""Dictionaries whose warnings are printed, at most."""
Until = Annotated[
    Literal["train", "score", "name", "report"],
    typer.Option(help="Last step of each dictionary; report writes a page for each."),
]


@with_settings(leave_out=("sae", "layout", "wandb_project"), many=VARY)
def sweep(
    *,
    settings: Settings,
    grid: dict[str, list[Any]],
    out: Out,
    until: Until = "name",
    resume: Resume = False,
    redo: Redo = False,
    dry_run: DryRun = False,
) -> None:
    """Train and score many dictionaries on one harvest: every combination of the values of --hook, --architecture,
    --d-sae, --k, --sparsity and --seed.

    Each dictionary has a run folder in --out that every other command accepts. Several processes can share the work:
    start the command under torchrun, or start it again elsewhere with --resume. Compare the dictionaries with
    `cliplens compare`.

    Example: cliplens sweep --pairs world:4096 --k 4,8,16 --seed 0,1,2 --out runs/sweep
    """
    from cliplens import run

    resume = resume or redo or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if dry_run:
        _tell_plan(run.dry_sweep(settings, grid, out, resume=resume, redo=redo, until=until))
        return
    folder = run.sweep(settings, grid, out, resume=resume, redo=redo, until=until)
    if os.environ.get("RANK", "0") == "0":
        _tell(folder)


def _tell_plan(plan: Any) -> None:
    from cliplens.faults import size

    for note in plan.notes:
        say(console, note, "[yellow]Note[/]")
    console.print("Sites: " + ", ".join(map(str, plan.sites)), soft_wrap=True)
    console.print("Activations: " + (f"{size(plan.harvest_bytes)} to write" if plan.harvest_bytes else "reuse"))
    lines = []
    for name, run in plan.runs.items():
        to_do = [step for step, will, _, _ in run.rows() if will != "reuse" and step != "harvest"]
        lines.append([name, "do" if to_do else "reuse", ", ".join(to_do)])
    print_table(["dictionary", "what", "steps"], lines, console=console)
    console.print("Nothing was written.")


def _tell(folder: Any) -> None:
    from cliplens.files import read_json

    heads = {"l0": "L0", "explained_variance": "explained variance", "alive": "alive", "d_sae": "latents"}
    found = {run.path.name: read_json(run.summary) if run.summary.exists() else {} for run in folder.runs}
    heads = {name: head for name, head in heads.items() if any(name in figures for figures in found.values())}
    cells = [[name, *(_cell(figures.get(head)) for head in heads)] for name, figures in found.items()]
    print_table(["dictionary", *heads.values()], cells, console=console)  # only names where nothing was scored
    _tell_warnings({name: figures.get("warnings", []) for name, figures in found.items()})
    console.print(f"[bold]Sweep[/] {folder.path}", soft_wrap=True)
    console.print(f"Compare them: cliplens compare {folder.path}", soft_wrap=True, markup=False)


def _tell_warnings(warned: dict[str, list[str]]) -> None:
    """Print the warnings of the first dictionaries that have some."""
    having = [name for name, warnings in warned.items() if warnings]
    for name in having[:_WARNED]:
        for warning in warned[name]:
            say(console, warning, f"[bold red]{escape(name)}[/]")
    if len(having) > _WARNED:
        console.print(f"[bold red]{len(having) - _WARNED} more dictionaries have warnings; see their reports.[/]")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
