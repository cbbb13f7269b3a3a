"""`cliplens agree`: compute the agreement of raters with each other and with the metrics."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def agree(
    folder: Annotated[Path, typer.Argument(help="Run folder whose rate.html the raters answered.")],
    ratings: Annotated[list[Path], typer.Argument(help="Files ratings-*.json saved by the page, one per rater.")],
) -> None:
    """Compute the agreement between raters (Krippendorff's alpha), and between raters and metrics.

    Example: cliplens agree runs/first ratings-anna.json ratings-ben.json
    """
    from cliplens.errors import MismatchError
    from cliplens.pages import figure
    from cliplens.records import LatentTable
    from cliplens.runfolder import RunFolder
    from cliplens.terminal import print_table
    from cliplens_plugins.report.agree import agreement_between, agreement_with_metrics, read_ratings
    from cliplens_plugins.report.rate import former_identity, identity

    run = RunFolder.open(folder)
    own, former = identity(run), former_identity(run)
    given = [read_ratings(path) for path in ratings]
    given = [replace(r, run=own) if r.run == former else r for r in given]
    others = {r.rater for r in given if r.run != own}
    if others:
        raise MismatchError(
            expected=f"ratings of the run in {folder}",
            found=f"ratings of another run by {', '.join(sorted(others))}",
            fix="pass the folder whose rate.html these raters answered",
        )
    parts = {
        "Between raters": agreement_between(given),
        "Between raters and metrics": agreement_with_metrics(given, LatentTable.load(run.latents)),
    }
    for title, rows in parts.items():
        heads = list(dict.fromkeys(head for row in rows for head in row))
        print_table(heads, [[figure(row.get(head)) for head in heads] for row in rows], title=title)
