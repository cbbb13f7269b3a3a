"""`cliplens cite`: the BibTeX of the methods that a run used."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def cite(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(help="Write a .bib file in place of printing.")] = None,
) -> None:
    """Print the BibTeX of the methods a run used: software, training class, scores, names, studies.

    Each entry says what of the run it stands for. Check authors and venue before you publish.

    Example: cliplens cite runs/first --out methods.bib
    """
    from cliplens.files import atomic_write
    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.cite.methods import cited

    text = cited(OpenedRun(RunFolder.open(folder)))
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic_write(out) as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(f"Written: {out}")
