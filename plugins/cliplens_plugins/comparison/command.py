"""`cliplens compare`: dictionaries side by side."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    dictionaries: Annotated[
        list[Path], typer.Argument(help="Run folders, folders of sweeps, or dictionaries (these need --on).")
    ],
    on: Annotated[
        Path | None, typer.Option(help="Run whose pairs and activations dictionaries without a run are measured on.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for compare.html, compare.csv and compare.json.")] = Path(
        "comparison"
    ),
    pairs: Annotated[int, typer.Option(min=2, help="Number of pictures to measure on, at most.")] = 2048,
    replicates: Annotated[int, typer.Option(min=20, help="Number of bootstrap samples of pictures.")] = 200,
) -> None:
    """Compare dictionaries: L0, explained variance, monosemanticity, modality, names, stability, in one table and page.

    Every figure is measured on the same pictures, which none of the dictionaries was trained on, and has its control
    and its interval. A difference counts only if it is larger than between two seeds and than over other pictures.
    What was measured on other pairs, at another hook, on another model or by another judge is not compared.

    Example: cliplens compare runs/sweep --out runs/comparison
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens_plugins.comparison.compare import compare as compared
    from cliplens_plugins.comparison.files import save_csv, save_json
    from cliplens_plugins.comparison.page import save_page
    from cliplens_plugins.comparison.subjects import open_subjects

    found = compared(open_subjects(dictionaries, on), pairs=pairs, replicates=replicates)
    out.mkdir(parents=True, exist_ok=True)
    save_csv(out / "compare.csv", found)
    save_json(out / "compare.json", found)
    save_page(out / "compare.html", found)
    _tell(found)
    typer.echo(f"Table: {out / 'compare.csv'} and {out / 'compare.json'}")
    typer.echo(f"Page: {out / 'compare.html'}")


def _tell(found: Any) -> None:
    from rich.console import Console
    from rich.markup import escape

    from cliplens.terminal import print_table, say
    from cliplens_plugins.comparison.page import groups_of

    console = Console(highlight=False)
    letters = groups_of(found)
    lines = []
    for name, members in found.configurations.items():
        cells = [_cell(found.measured[name].get(f.name), letters[f.name].get(name, "")) for f in found.figures]
        lines.append([name, str(len(members)), *cells])
    print_table(["configuration", "seeds", *(f.title for f in found.figures)], lines, console=console)
    for note in found.notes:
        say(console, note, "[yellow]Note[/]")
    different = [d for d in found.differences if d.verdict == "different"]
    titles = {f.name: f.title for f in found.figures}
    tested = sum(d.verdict not in ("not comparable", "not measured", "no seeds") for d in found.differences)
    says = f"{len(different)} of {tested} differences exceed chance" if tested else "No difference could be tested"
    if len(found.configurations) > 1:
        console.print(says)
    for d in different[:12]:
        console.print(
            f"  {titles[d.figure]}: {escape(d.first)} against {escape(d.second)} {d.difference:+.3f}", soft_wrap=True
        )
    if len(different) > 12:
        console.print(f"  and {len(different) - 12} more on the page")


def _cell(held: Any, letter: str) -> str:
    if held is None or held.value != held.value:
        return "-"
    known = held.low == held.low
    return f"{held.value:.3f}{letter and f' {letter}'}" + (f"\n{held.low:.3f} to {held.high:.3f}" if known else "")
