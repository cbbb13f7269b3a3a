"""The options of `cliplens steer`, and how their texts are read."""

from pathlib import Path
from typing import Annotated

import typer

WHAT, WHOM, HOW, SCORE = "What to do", "What to steer", "How", "Scores"

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
Compare = Annotated[
    list[str] | None,
    typer.Option("--compare", help="Another edit, steered alone beside the first. Repeatable.", rich_help_panel=WHAT),
]
PositionsOption = Annotated[
    str,
    typer.Option(
        "--positions",
        help="Positions the edits apply to: all, content (words or patches), eot (or cls), others.",
        rich_help_panel=WHAT,
    ),
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
        min=1,
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
Config = Annotated[
    Path | None,
    typer.Option(help="Folder of configs for a single-file checkpoint, where offline.", rich_help_panel=WHOM),
]
Variant = Annotated[
    str | None,
    typer.Option(help="Variant of the pipeline's weights, such as fp16; default: detected.", rich_help_panel=WHOM),
]
Dtype = Annotated[
    str, typer.Option(help="Data type of the pipeline: float32, float16 or bfloat16.", rich_help_panel=WHOM)
]
Lora = Annotated[Path | None, typer.Option(help="LoRA folder or file for the pipeline.", rich_help_panel=WHOM)]
IpAdapter = Annotated[
    Path | None,
    typer.Option(help="IP-Adapter for the pipeline, with image_encoder/ beside it.", rich_help_panel=WHOM),
]
IpImage = Annotated[
    list[Path] | None, typer.Option("--ip-image", help="Reference picture of an IP-Adapter.", rich_help_panel=WHOM)
]
Mask = Annotated[Path | None, typer.Option(help="Mask of an inpainting pipeline.", rich_help_panel=WHOM)]
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
Steps = Annotated[int, typer.Option(min=1, help="Number of denoising steps of a pipeline.", rich_help_panel=HOW)]
Guidance = Annotated[float | None, typer.Option(min=0, help="Guidance scale of a pipeline.", rich_help_panel=HOW)]
Negative = Annotated[str | None, typer.Option(help="Negative prompt of a pipeline.", rich_help_panel=HOW)]
Size = Annotated[
    str | None, typer.Option(help="Width and height of a pipeline's pictures, such as 512x512.", rich_help_panel=HOW)
]
Scheduler = Annotated[
    str | None, typer.Option(help="Scheduler of a pipeline: euler, ddim, ...; default its own.", rich_help_panel=HOW)
]
Strength = Annotated[float | None, typer.Option(help="How much of --image is drawn anew, 0 to 1.", rich_help_panel=HOW)]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the noise, the same for every dose.", rich_help_panel=HOW)]
Seeds = Annotated[
    str | None, typer.Option(help="Several seeds, 0,1,2: every sample is drawn with each.", rich_help_panel=HOW)
]
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


def read_window(text: str) -> tuple[float, float]:
    """Return the window FROM:TO of an option, as shares of the steps.

    Raises:
        InputError: the text is not of this form.
    """
    numbers = read_numbers(text, ":")
    if len(numbers) != 2:
        raise _unreadable("a window FROM:TO", text, "pass for example --window 0:0.5")
    return numbers[0], numbers[1]


def read_size(text: str) -> tuple[int, int]:
    """Return the size WIDTHxHEIGHT of an option, in pixels.

    Raises:
        InputError: the text is not of this form.
    """
    numbers = read_numbers(text, "x")
    if len(numbers) != 2 or any(n != int(n) or n < 1 for n in numbers):
        raise _unreadable("a size WIDTHxHEIGHT", text, "pass for example --size 512x512")
    return int(numbers[0]), int(numbers[1])


def read_whole(text: str) -> tuple[int, ...]:
    """Return the whole numbers of an option, separated by commas.

    Raises:
        InputError: the text is not of this form.
    """
    numbers = read_numbers(text, ",")
    if any(n != int(n) for n in numbers):
        raise _unreadable("whole numbers with commas between them", text, "write for example --seeds 0,1,2")
    return tuple(int(n) for n in numbers)


_POSITIONS = {"all": "all", "content": "content", "others": "others", "eot": "special", "cls": "special"}


def read_positions(text: str) -> str:
    """Return the kind of positions that an option names.

    Raises:
        InputError: the text is not of this form.
    """
    if text.casefold() not in (*_POSITIONS, "special"):
        raise _unreadable(f"positions: {', '.join(_POSITIONS)}", text, "write for example --positions content")
    return _POSITIONS.get(text.casefold(), "special")


def read_numbers(text: str, between: str) -> tuple[float, ...]:
    """Return the numbers of an option, separated by `between`.

    Raises:
        InputError: the text is not of this form.
    """
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
