"""Put prompts, pictures and references together into the samples that a pipeline draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from cliplens.errors import InputError
from cliplens.pairs import IMAGE_SUFFIXES
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.request import SteeringRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """The prompt, pictures and reference of one picture to draw."""

    prompt: str | None = None
    image: Path | None = None
    ip_image: Path | None = None
    reference: int = 0
    """Number of the reference."""
    label: str = ""


def samples_of(request: SteeringRequest) -> list[Sample]:
    """Return the samples of a request: its n-th prompt goes with its n-th picture and its n-th reference.

    One prompt, picture or reference goes with all of the others.

    Raises:
        InputError: there are several of two kinds, and not as many of both.
    """
    given = {
        "--prompt": request.prompts,
        "--image": request.images,
        "--ip-image": request.ip_images,
        "--reference": request.reference,
    }
    count = check_counts({name: len(values) for name, values in given.items()})
    return [
        Sample(
            prompt=_nth(request.prompts, n),
            image=_nth(request.images, n),
            ip_image=_nth(request.ip_images, n),
            reference=n if len(request.reference) > 1 else 0,
            label=_label(request, n),
        )
        for n in range(count)
    ]


def check_counts(counts: dict[str, int]) -> int:
    """Return the number of samples: the largest of the counts by option.

    >>> check_counts({"--prompt": 2, "--image": 0, "--reference": 1})
    2

    Raises:
        InputError: a count is neither 0, 1 nor the largest.
    """
    most = max(counts.values())
    if any(n not in (0, 1, most) for n in counts.values()):
        several = ", ".join(f"{n} {name}" for name, n in counts.items() if n > 1)
        raise InputError(
            expected="as many of each option as samples, or one of it for all samples",
            found=several,
            fix=f"give each of them {most} times or once: the first belong together, then the second, and so on",
        )
    return most


def compared_with(
    request: SteeringRequest, references: Sequence[Image.Image | str]
) -> dict[str, Sequence[Image.Image | str]]:
    """Return with which pictures and words a judge compares the pictures of a mix, by name."""
    pictures = request.ip_images or request.images
    if request.pipeline is None and request.prompts:
        pictures = ()  # a generator draws the prompts alone
    found: dict[str, Sequence[Image.Image | str]] = {
        "prompt": request.prompts,
        "picture": [picture_at(path) for path in pictures],
        "reference": references,
    }
    return {name: given for name, given in found.items() if given}


def _nth(values: tuple[T, ...], n: int) -> T | None:
    return values[n % len(values)] if values else None


def _label(request: SteeringRequest, n: int) -> str:
    """Return the prompt, else the picture's name; and whatever else differs between samples."""
    pictures = [paths[n].name for paths in (request.images, request.ip_images) if len(paths) > 1]
    if not request.prompts and not pictures:
        pictures = [path.name for path in (*request.images, *request.ip_images)]
    prompt = [request.prompts[n % len(request.prompts)]] if request.prompts else []
    return ", ".join([*prompt, *pictures, *([_short(request.reference[n])] if len(request.reference) > 1 else [])])


def _short(reference: str) -> str:
    """Return the name of a picture file without its folder; a caption as it is."""
    path = Path(reference)
    return path.name if path.suffix.lower() in IMAGE_SUFFIXES else reference
