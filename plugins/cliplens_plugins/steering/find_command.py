"""`cliplens find`: find the latents of a run for some words."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

_EACH, _SIDE = 6, 96
"""Pictures per latent in the file of pictures, and their side in pixels."""
ORDER = (
    "Good latents come first, then those with the highest score, the mean of name match, text match, evidence and "
    "reach (nan counts as 0). An edit takes the good ones with the highest level."
)
"""How the rows are ordered."""
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
    pictures: Annotated[
        Path | None, typer.Option(help="PNG to write, with the top pictures of each latent in a row.")
    ] = None,
) -> None:
    """Find the latents of a run that represent some words.

    Latents are ranked by their name, by their code when the words are encoded, by the correlation of their codes with
    captions that contain the words (evidence), and by the share of those captions on which they fire (reach). An edit
    such as red=+2x uses all latents marked good.

    Example: cliplens find runs/first red
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rich.console import Console

    from cliplens.files import check_room
    from cliplens.run import OpenedRun
    from cliplens.run.find import GOOD
    from cliplens.runfolder import RunFolder
    from cliplens.sites import MODALITIES
    from cliplens.terminal import print_table

    if pictures is not None:
        check_room(pictures, 0)
    opened = OpenedRun(RunFolder.open(run))
    found = opened.find(words, count, modality=modality)
    figures = ("score", "name match", "text match", "evidence", "reach", "level")
    table, said = [], []
    for c in found:
        values = (c.score, c.name_match, c.text_match, c.evidence, c.reach, c.level)
        table.append([str(c.latent), c.name or "-", "yes" if c.good else "", *(f"{v:.2f}" for v in values)])
        captions = ["; ".join(opened.captions_of(c.latent, 2, modality=m)) for m in MODALITIES]
        said.append([str(c.latent), *captions])
    console = Console(highlight=False)
    print_table(["latent", "name", "good", *figures], table, console=console)
    console.print(ORDER, soft_wrap=not console.is_terminal)
    if found[0].needed > GOOD:
        console.print(
            f"Good needs evidence of {found[0].needed:.2f} here, because chance alone reaches that with so few pairs."
        )
    console.print()
    print_table(["latent", "top pictures say", "top captions"], said, console=console)
    shown = f"{opened.folder.report}#latent-{found[0].latent}"
    if pictures is not None:
        save_pictures(pictures, [(f"{c.latent} {c.name or ''}", opened.top_pictures(c.latent, _EACH)) for c in found])
        shown = str(pictures)
    console.print(f"[bold]Pictures[/] {shown}", soft_wrap=True)


def save_pictures(path: Path, rows: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Write a PNG with one row of pictures per latent. Latents without pictures are left out."""
    from PIL import Image, ImageOps

    from cliplens_plugins.steering.pictures import save_strip

    blank = Image.new("RGB", (_SIDE, _SIDE), "white")
    kept = [
        (label, [ImageOps.pad(p.convert("RGB"), blank.size, color="white") for p in found]) for label, found in rows
    ]
    kept = [(label, [*found, *[blank] * (_EACH - len(found))]) for label, found in kept if found]
    if kept:
        save_strip(path, [row for _, row in kept], [f"top {n + 1}" for n in range(_EACH)], [label for label, _ in kept])
