"""`cliplens steer`: edits over doses, on a run with the embedded generator, on a diffusers pipeline, on a model that
answers questions about pictures.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

WHAT, WHOM, HOW, SCORE = "What to do", "What to steer", "How", "Scores"
app = typer.Typer(add_completion=False)

Folder = Annotated[Path | None, typer.Argument(help="A run folder: its model, dictionary and names.")]
EditOption = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        help="red=+4, red=+2x (typical levels), 17=3, red=*0.5, red=off, red->blue=+2x, class:ImgD~1. Repeatable.",
        rich_help_panel=WHAT,
    ),
]
EditsFile = Annotated[Path | None, typer.Option(help="Edits saved earlier, as JSON.", rich_help_panel=WHAT)]
Doses = Annotated[str, typer.Option("--dose", help="How much of the edits, one column each.", rich_help_panel=WHAT)]
Reference = Annotated[
    str | None, typer.Option(help="Picture file or caption to swap with (edits with ~).", rich_help_panel=WHAT)
]
ErrorTerm = Annotated[bool, typer.Option(help="Keep what the dictionary cannot reconstruct.", rich_help_panel=WHAT)]
Prompt = Annotated[
    list[str] | None, typer.Option(help="Caption to start from, or question. Repeatable.", rich_help_panel=WHOM)
]
Picture = Annotated[list[Path] | None, typer.Option("--image", help="Picture to start from.", rich_help_panel=WHOM)]
PairCount = Annotated[int, typer.Option("--pairs", help="Held-out pictures to start from.", rich_help_panel=WHOM)]
Generator = Annotated[str, typer.Option(help="Who draws from embeddings.", rich_help_panel=WHOM)]
Pipeline = Annotated[
    Path | None, typer.Option(help="Folder of a diffusers pipeline, or of a LLaVA-type model.", rich_help_panel=WHOM)
]
Sae = Annotated[Path | None, typer.Option(help="Dictionary, if not the run's.", rich_help_panel=WHOM)]
SiteOption = Annotated[
    str | None, typer.Option("--site", help="text.blocks.10.hook_resid_post, ...", rich_help_panel=HOW)
]
Part = Annotated[
    str | None,
    typer.Option(help="text_encoder, text_encoder_2, image_embeds, image_encoder.", rich_help_panel=HOW),
]
WindowOption = Annotated[
    str | None, typer.Option("--window", help="Part of the denoising, 0:0.5 = its first half.", rich_help_panel=HOW)
]
Steps = Annotated[int, typer.Option(help="Denoising steps of a pipeline.", rich_help_panel=HOW)]
Seed = Annotated[int, typer.Option(help="Of the noise, the same for every dose.", rich_help_panel=HOW)]
Measure = Annotated[
    str | None,
    typer.Option(
        help="colour=blue (read off the pictures by the embedded judge), or with --judge a phrase.",
        rich_help_panel=SCORE,
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        help="Judge of the pictures against the phrase, as in `cliplens run`: open_clip:NAME|WEIGHTS.",
        rich_help_panel=SCORE,
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for strip.png, edits.json and steering.json; default RUN/steering.")
]


@app.command()
def steer(
    run: Folder = None,
    edit: EditOption = None,
    edits: EditsFile = None,
    dose: Doses = "0,0.5,1,2,3",
    reference: Reference = None,
    error_term: ErrorTerm = True,
    prompt: Prompt = None,
    image: Picture = None,
    pairs: PairCount = 4,
    generator: Generator = "world",
    pipeline: Pipeline = None,
    sae: Sae = None,
    site: SiteOption = None,
    part: Part = None,
    window: WindowOption = None,
    steps: Steps = 30,
    seed: Seed = 0,
    measure: Measure = None,
    judge: Judge = None,
    out: Out = None,
) -> None:
    """Steer pictures or answers through dictionary latents, over doses, and see what it did.

    On a run: cliplens steer run/ --edit "red->blue=+2x" --measure colour=blue

    On a pipeline: cliplens steer --pipeline sd/ --sae sae/ --prompt "a ring" --edit "17=+4"

    On a model that answers: cliplens steer --pipeline llava/ --sae sae/ --image x.png --prompt "What?" --edit "17=+4"
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads steal each other's time
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.steering.session import SteeringRequest, do

    asked = SteeringRequest(
        run=run,
        edit=tuple(edit or ()),
        edits=edits,
        doses=_numbers(dose, ","),
        reference=reference,
        error_term=error_term,
        prompts=tuple(prompt or ()),
        images=tuple(image or ()),
        pairs=pairs,
        generator=generator,
        pipeline=pipeline,
        sae=sae,
        site=site,
        part=part,
        window=None if window is None else _window(window),
        steps=steps,
        seed=seed,
        measure=measure,
        judge=judge,
        out=out or (Path("cliplens-steer") if run is None else RunFolder(run).steering),
    )
    _tell(do(asked), asked.out)


def _tell(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    measured = found["measured"]
    if measured:
        table = Table(*measured[0], box=None)
        for row in measured:
            table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)
    if found["aim"]:
        console.print(f"[bold]Aim[/] {found['aim']}")
    for note in found["notes"]:
        console.print(f"[yellow]Note[/] {note}", soft_wrap=True)
    made = out / ("strip.png" if (out / "strip.png").exists() else "steering.json")
    console.print(f"[bold]Written[/] {made}", soft_wrap=True)


def _window(text: str) -> tuple[float, float]:
    numbers = _numbers(text, ":")
    if len(numbers) != 2:
        raise _unreadable("a window FROM:TO, such as 0:0.5", text)
    return numbers[0], numbers[1]


def _numbers(text: str, between: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(between))
    except ValueError as error:
        raise _unreadable(f"numbers with {between!r} between them", text) from error


def _unreadable(expected: str, found: str) -> Exception:
    from cliplens.errors import InputError

    return InputError(expected=expected, found=repr(found), fix="write it so")
