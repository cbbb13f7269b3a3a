"""`cliplens find`: find the latents of a run for some words."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def find(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    words: Annotated[str, typer.Argument(help="One or more words, such as red.")],
    modality: Annotated[
        Literal["image", "text"] | None,
        typer.Option(help="Compare the codes of images or of captions with the words; default image, if available."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of latents to show.")] = 10,
) -> None:
    """Find the latents of a run that represent some words.

    Latents are ranked by their name, by their code when the words are encoded, by the correlation of their codes with
    captions that contain the words (evidence), and by the share of those captions on which they fire (reach). An edit
    such as red=+2x uses all latents marked good.

    Example: cliplens find runs/first red
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console
    from rich.table import Table

    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder

    opened = OpenedRun(RunFolder.open(run))
    found = opened.find(words, count, modality=modality)
    table = Table(
        "latent",
        "name",
        "good",
        "score",
        "name match",
        "text match",
        "evidence",
        "reach",
        "level",
        "top captions",
        box=None,
    )
    for c in found:
        values = (c.score, c.name_match, c.text_match, c.evidence, c.reach, c.level)
        captions = "; ".join(opened.captions_of(c.latent, 2))
        table.add_row(str(c.latent), c.name or "-", "yes" if c.good else "", *(f"{v:.2f}" for v in values), captions)
    Console(highlight=False).print(table)
    Console(highlight=False).print(f"[bold]Pictures[/] {opened.folder.report}", soft_wrap=True)
