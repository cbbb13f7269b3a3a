"""The options of `cliplens steer`, and how their texts are read."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

_what = partial(typer.Option, rich_help_panel="What to do")
_whom = partial(typer.Option, rich_help_panel="What to steer")
_how = partial(typer.Option, rich_help_panel="How")
_scored = partial(typer.Option, rich_help_panel="Scores")

Folder = Annotated[
    Path | None, typer.Argument(help="Run folder of a finished run, whose model, dictionary and names are used.")
]
EditOption = Annotated[
    list[str] | None,
    _what(
        "--edit",
        help="Edit to apply: red=+4, red=+2x (in typical levels), 17=3, red=*0.5, red=off, red->blue=+2x or "
        "class:ImgD~1. May be repeated.",
    ),
]
Most = Annotated[
    int | None,
    _what(min=1, help="Edit at most this many latents per word, those with the largest mean codes; default 24."),
]
EditsFile = Annotated[Path | None, _what(help="JSON file of saved edits, such as edits.json.")]
Doses = Annotated[
    str | None,
    _what(
        "--dose",
        help="Factors on the edits, with commas between; 0 = no edit; default 0,0.5,1,2,3. With --mix the alphas, "
        "default 0,0.5,1.",
    ),
]
Reference = Annotated[
    list[str] | None,
    _what(
        "--reference",
        help="Picture file or caption whose codes are swapped in, for --mix and edits with ~. With --mix it may be "
        "repeated: one for each sample.",
    ),
]
Mix = Annotated[
    bool,
    _what(
        "--mix",
        help="Mix the codes of --reference in by modality class: ImgD, TextD, CrossD, all, and as many random latents; "
        "with --judge, score how near the pictures are to their prompt and to the reference.",
    ),
]
Compare = Annotated[
    list[str] | None, _what("--compare", help="Another edit, steered alone beside the first. Repeatable.")
]
PositionsOption = Annotated[
    str,
    _what("--positions", help="Positions the edits apply to: all, content (words or patches), eot (or cls), others."),
]
ErrorTerm = Annotated[bool, _what(help="Keep the dictionary's reconstruction error.")]
Prompt = Annotated[list[str] | None, _whom(help="Caption, prompt or question to steer. May be repeated.")]
Picture = Annotated[list[Path] | None, _whom("--image", help="Image file to steer. May be repeated.")]
PairCount = Annotated[
    int | None,
    _whom(
        "--pairs",
        min=1,
        help="Number of held-out pairs to steer; default 4 for a strip of pictures, 256 for CLIP itself.",
    ),
]
Generator = Annotated[
    str | None,
    _whom(help="Generator that draws embeddings: world (default for runs on it), or none to steer CLIP itself."),
]
Pipeline = Annotated[
    Path | None,
    _whom(
        help="Folder of a diffusers pipeline or of a multimodal language model to steer, or a single-file checkpoint."
    ),
]
Config = Annotated[Path | None, _whom(help="Folder of configs for a single-file checkpoint, where offline.")]
Variant = Annotated[str | None, _whom(help="Variant of the pipeline's weights, such as fp16; default: detected.")]
Dtype = Annotated[str, _whom(help="Data type of the pipeline: float32, float16 or bfloat16.")]
Lora = Annotated[Path | None, _whom(help="LoRA folder or file for the pipeline.")]
IpAdapter = Annotated[Path | None, _whom(help="IP-Adapter for the pipeline, with image_encoder/ beside it.")]
IpImage = Annotated[
    list[Path] | None, _whom("--ip-image", help="Picture for an IP-Adapter. May be repeated, each drawn alone.")
]
Mask = Annotated[Path | None, _whom(help="Mask of an inpainting pipeline.")]
Sae = Annotated[Path | None, _whom(help="Folder of the dictionary; default: that of the run.")]
SiteOption = Annotated[
    str | None,
    _how("--site", help="Site to steer, such as text.blocks.10.hook_resid_post; default: that of the dictionary."),
]
Part = Annotated[
    str | None,
    _how(
        help="Part of the pipeline to steer: text_encoder, text_encoder_2, image_embeds or image_encoder; default: the "
        "first that fits."
    ),
]
WindowOption = Annotated[
    str | None, _how("--window", help="Part of the denoising to steer, such as 0:0.5 for its first half; default: all.")
]
Steps = Annotated[int, _how(min=1, help="Number of denoising steps of a pipeline.")]
Guidance = Annotated[float | None, _how(min=0, help="Guidance scale of a pipeline.")]
Negative = Annotated[str | None, _how(help="Negative prompt of a pipeline.")]
Size = Annotated[str | None, _how(help="Width and height of a pipeline's pictures, such as 512x512.")]
Scheduler = Annotated[str | None, _how(help="Scheduler of a pipeline: euler, ddim, ...; default its own.")]
Strength = Annotated[float | None, _how(help="How much of --image is drawn anew, 0 to 1.")]
Seed = Annotated[int, _how(min=0, help="Seed of the noise, the same for every dose.")]
Seeds = Annotated[
    str | None,
    _how(help="Several seeds, 0,1,2: every sample is drawn with each. A seed gives all samples the same noise."),
]
Classes = Annotated[str | None, _scored(help="Classes for zero-shot classification by CLIP itself: 'cat,dog'.")]
Measure = Annotated[
    str | None,
    _scored(
        help="Intended effect: attribute=value such as colour=blue, on pictures of the world; or, with --judge, a "
        "phrase such as 'a blue ring'."
    ),
]
Control = Annotated[bool, _scored("--control", help="Also measure a random edit of equal norm.")]
Judge = Annotated[
    str | None,
    _scored(
        help="Model that compares the pictures with the phrase of --measure, or with the prompt and the reference "
        "of --mix: open_clip:NAME|WEIGHTS."
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
