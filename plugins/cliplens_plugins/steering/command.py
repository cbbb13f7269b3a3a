"""`cliplens steer`: steer CLIP, a generator, a diffusers pipeline or a multimodal language model over doses."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

WHAT, WHOM, HOW, SCORE = "What to do", "What to steer", "How", "Scores"
app = typer.Typer(add_completion=False)

Folder = Annotated[
    Path | None, typer.Argument(help="Run folder of a finished run, whose model, dictionary and names are used.")
]
EditOption = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        help="Edit to apply: red=+4, red=+2x (in typical levels), 17=3, red=*0.5, red=off, red->blue=+2x or "
        "class:ImgD~1. May be repeated.",
        rich_help_panel=WHAT,
    ),
]
EditsFile = Annotated[
    Path | None, typer.Option(help="JSON file of saved edits, such as edits.json.", rich_help_panel=WHAT)
]
Doses = Annotated[
    str, typer.Option("--dose", help="Factors on the edits, with commas between; 0 = no edit.", rich_help_panel=WHAT)
]
Reference = Annotated[
    str | None,
    typer.Option(help="Picture file or caption whose codes are swapped in, for edits with ~.", rich_help_panel=WHAT),
]
ErrorTerm = Annotated[bool, typer.Option(help="Keep the dictionary's reconstruction error.", rich_help_panel=WHAT)]
Prompt = Annotated[
    list[str] | None, typer.Option(help="Caption, prompt or question to steer. May be repeated.", rich_help_panel=WHOM)
]
Picture = Annotated[
    list[Path] | None, typer.Option("--image", help="Image file to steer. May be repeated.", rich_help_panel=WHOM)
]
PairCount = Annotated[
    int | None,
    typer.Option(
        "--pairs",
        help="Number of held-out pairs to steer; default 4 for a strip of pictures, 256 for CLIP itself.",
        rich_help_panel=WHOM,
    ),
]
Generator = Annotated[
    str | None,
    typer.Option(
        help="Generator that draws embeddings: world (default for runs on it), or none to steer CLIP itself.",
        rich_help_panel=WHOM,
    ),
]
Pipeline = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a diffusers pipeline or of a multimodal language model to steer, or a single-file checkpoint.",
        rich_help_panel=WHOM,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(help="Variant of the pipeline's weights, such as fp16; default: detected.", rich_help_panel=WHOM),
]
Dtype = Annotated[
    str, typer.Option(help="Data type of the pipeline: float32, float16 or bfloat16.", rich_help_panel=WHOM)
]
Lora = Annotated[Path | None, typer.Option(help="LoRA folder or file for the pipeline.", rich_help_panel=WHOM)]
Sae = Annotated[
    Path | None, typer.Option(help="Folder of the dictionary; default: that of the run.", rich_help_panel=WHOM)
]
SiteOption = Annotated[
    str | None,
    typer.Option(
        "--site",
        help="Site to steer, such as text.blocks.10.hook_resid_post; default: that of the dictionary.",
        rich_help_panel=HOW,
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        help="Part of the pipeline to steer: text_encoder, text_encoder_2, image_embeds or image_encoder; default: the "
        "first that fits.",
        rich_help_panel=HOW,
    ),
]
WindowOption = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="Part of the denoising to steer, such as 0:0.5 for its first half; default: all.",
        rich_help_panel=HOW,
    ),
]
Steps = Annotated[int, typer.Option(help="Number of denoising steps of a pipeline.", rich_help_panel=HOW)]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale of a pipeline.", rich_help_panel=HOW)]
Negative = Annotated[str | None, typer.Option(help="Negative prompt of a pipeline.", rich_help_panel=HOW)]
Size = Annotated[
    str | None, typer.Option(help="Width and height of a pipeline's pictures, such as 512x512.", rich_help_panel=HOW)
]
Seed = Annotated[int, typer.Option(help="Seed of the noise, the same for every dose.", rich_help_panel=HOW)]
Classes = Annotated[
    str | None,
    typer.Option(help="Classes for zero-shot classification by CLIP itself: 'cat,dog'.", rich_help_panel=SCORE),
]
Measure = Annotated[
    str | None,
    typer.Option(
        help="Intended effect: attribute=value such as colour=blue, on pictures of the world; or, with --judge, a "
        "phrase such as 'a blue ring'.",
        rich_help_panel=SCORE,
    ),
]
Control = Annotated[
    bool,
    typer.Option("--control", help="Also measure a random edit of equal norm.", rich_help_panel=SCORE),
]
Judge = Annotated[
    str | None,
    typer.Option(
        help="Model that compares the pictures with the phrase of --measure: open_clip:NAME|WEIGHTS.",
        rich_help_panel=SCORE,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder to write; default RUN/steering, or cliplens-steer without a run."),
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
    pairs: PairCount = None,
    generator: Generator = None,
    pipeline: Pipeline = None,
    variant: Variant = None,
    dtype: Dtype = "float32",
    lora: Lora = None,
    sae: Sae = None,
    site: SiteOption = None,
    part: Part = None,
    window: WindowOption = None,
    steps: Steps = 30,
    guidance: Guidance = None,
    negative: Negative = None,
    size: Size = None,
    seed: Seed = 0,
    classes: Classes = None,
    measure: Measure = None,
    control: Control = False,
    judge: Judge = None,
    out: Out = None,
) -> None:
    """Steer a model by editing latents, at several doses, and measure success and side effects.

    A run: cliplens steer runs/first --edit "red->blue=+2x"

    A pipeline: cliplens steer --pipeline sd/ --sae sae/ --prompt "a ring" --edit "17=+4"

    A multimodal model: cliplens steer --pipeline llava/ --sae sae/ --image x.png --prompt "What?" --edit "17=+4"

    Writes strip.png, edits.json, steering.json and steering.html.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # must be set before importing torch
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.steering.request import SteeringRequest
    from cliplens_plugins.steering.session import do

    request = SteeringRequest(
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
        classes=tuple(c.strip() for c in (classes or "").split(",") if c.strip()),
        pipeline=pipeline,
        variant=variant,
        dtype=dtype,
        lora=lora,
        sae=sae,
        site=site,
        part=part,
        window=None if window is None else _window(window),
        steps=steps,
        guidance=guidance,
        negative=negative,
        size=None if size is None else _size(size),
        seed=seed,
        measure=measure,
        control=control,
        judge=judge,
        out=out or (Path("cliplens-steer") if run is None else RunFolder(run).steering),
    )
    _tell(do(request), request.out)


def _tell(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for words, latents in found["latents"].items():
        listed = ", ".join(_latent(entry) for entry in latents)
        console.print(f"[bold]Latents[/] {words}: {listed}", soft_wrap=True)
    if found["measured"]:
        _tell_figures(console, found["measured"])
    if found["aim"]:
        console.print(f"[bold]Aim[/] {found['aim']}{_success(found)}", soft_wrap=True)
    for note in found["notes"]:
        console.print(f"[yellow]Note[/] {note}", soft_wrap=True)
    made = out / ("strip.png" if (out / "strip.png").exists() else "steering.json")
    console.print(f"[bold]Written[/] {made}", soft_wrap=True)


def _tell_figures(console: Any, rows: list[dict[str, Any]]) -> None:
    """Print one line per figure and one column per dose; of several samples, one line per sample and dose."""
    from rich.table import Table

    from cliplens_plugins.steering.page import shown

    if len({row["dose"] for row in rows}) < len(rows):
        table = Table(*rows[0], box=None)
        for row in rows:
            table.add_row(*map(shown, row.values()))
    else:
        table = Table("", *(f"dose {row['dose']:g}" for row in rows), box=None)
        for name in (n for n in rows[0] if n != "dose"):
            table.add_row(name, *(shown(row[name]) for row in rows))
    console.print(table)


def _latent(entry: dict[str, Any]) -> str:
    known = entry["evidence"] == entry["evidence"]
    figures = f", evidence {entry['evidence']:.2f}, fires on {entry['reach']:.0%}" if known else ""
    return f"{entry['latent']} ({entry['name']}{figures})"


def _success(found: dict[str, Any]) -> str:
    """Return the success of the edit in words, at the suggested dose or at the best one."""
    aim = found["aim"]
    rows = [row for row in found["measured"] if isinstance(row.get(aim), float) and row["dose"] != 0]
    if not rows:
        return ""
    suggested = found.get("suggested_dose")
    if suggested is None:
        best = max(rows, key=lambda row: row[aim])
        return f": {best[aim]:.0%} at dose {best['dose']:g}, but no dose keeps other attributes within 10 %"
    row = next(row for row in rows if row["dose"] == suggested)
    return f": {row[aim]:.0%} at the suggested dose {suggested:g}, other attributes within 10 %"


def _window(text: str) -> tuple[float, float]:
    numbers = _numbers(text, ":")
    if len(numbers) != 2:
        raise _unreadable("a window FROM:TO", text, "pass for example --window 0:0.5")
    return numbers[0], numbers[1]


def _size(text: str) -> tuple[int, int]:
    numbers = _numbers(text, "x")
    if len(numbers) != 2 or any(n != int(n) or n < 1 for n in numbers):
        raise _unreadable("a size WIDTHxHEIGHT", text, "pass for example --size 512x512")
    return int(numbers[0]), int(numbers[1])


def _numbers(text: str, between: str) -> tuple[float, ...]:
    from math import isfinite

    try:
        numbers = tuple(float(part) for part in text.split(between))
    except ValueError as error:
        raise _unreadable(f"numbers with {between!r} between them", text, "write for example 0,1,2") from error
    if not all(map(isfinite, numbers)):
        raise _unreadable("finite numbers", text, "write for example 0,1,2")
    return numbers


def _unreadable(expected: str, found: str, fix: str) -> Exception:
    from cliplens.errors import InputError

    return InputError(expected=expected, found=repr(found), fix=fix)
