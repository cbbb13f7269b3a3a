"""Open pictures of every kind Pillow reads as a person sees them: RGB, upright, transparency over a background.

A picture that cannot be shown faithfully (float pixels of an unknown range, for example) is refused with the reason,
never opened as something else.
"""

import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from cliplens.errors import BadPictureError, InputError

Orientation = Literal["upright", "stored"]
DROP = "drop"
MAX_PIXELS = 2**27
_MAX_ASPECT = 400
_EXIF_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Tags of TIFF."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True)
class BadPicture:
    """An entry of a source that cannot be a picture, with the reason."""

    reason: str


PictureSource = Path | bytes | Image.Image | BadPicture


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are opened. Part of what decides the bytes of a cache.

    Args:
        background: colour put behind transparent pixels, as a name or `#rrggbb`; "drop" ignores transparency as
            open_clip does, which shows the hidden colour of transparent pixels (often black).
        orientation: "upright" turns a picture as its EXIF orientation says; "stored" keeps it as it is stored, as
            open_clip does.
        max_pixels: pictures with more pixels are refused, before they are decoded.
    """

    background: str = "white"
    orientation: Orientation = "upright"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.background != DROP:
            try:
                ImageColor.getrgb(self.background)
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    expected="a background colour such as 'white' or '#ffffff', or 'drop'",
                    found=repr(self.background),
                    fix="pass --background white",
                ) from error
        if self.orientation not in ("upright", "stored"):
            raise InputError(
                expected="the orientation 'upright' or 'stored'",
                found=repr(self.orientation),
                fix="pass --orientation upright",
            )
        if not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise InputError(
                expected="a positive number of pixels as the limit of a picture",
                found=repr(self.max_pixels),
                fix=f"pass --max-pixels {MAX_PIXELS}",
            )

    def __str__(self) -> str:
        return f"background {self.background}, {self.orientation}, at most {self.max_pixels} pixels"


AS_SEEN = PictureOptions()


def open_picture(source: PictureSource, options: PictureOptions = AS_SEEN) -> Image.Image:
    """Open a picture, decode it to the last byte, and return it as RGB.

    Pixels of 16 bits, and floats from 0 to 1, are scaled to 8 bits. Of an animation the first frame is taken.

    Args:
        source: a file, the bytes of one, or a picture in memory.
        options: background, orientation and size limit.

    Raises:
        BadPictureError: there is no such file, it is not a whole picture, or its pixels have no known range.

    >>> open_picture(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    >>> open_picture(Image.new("I;16", (2, 2), 65535)).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(source, BadPicture):
        raise BadPictureError(source.reason)
    try:
        if isinstance(source, Image.Image):
            _check_size(source, options)
            return _as_seen(source, options)
        with _opened(_readable(source)) as opened:
            _check_size(opened, options)
            opened.load()
            return _as_seen(opened, options)
    except BadPictureError:
        raise
    except UnidentifiedImageError as error:
        raise BadPictureError(f"unreadable image: not an image Pillow knows{_ending(source)}") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more on damaged files.
        raise BadPictureError(f"unreadable image: {_first_line(error)}") from error


def _readable(source: Path | bytes) -> io.BytesIO | Path:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        raise BadPictureError(f"no image but a {type(source).__name__}")
    try:
        if source.is_file():
            return source
        reason = "missing file" if not source.exists() else "no file but a folder or device"
        if "\\" in source.name and not source.exists():
            reason += " (its name holds backslashes: write / between folders)"
    except PermissionError as error:
        reason = f"no permission to read the file: {error.strerror}"
    except OSError as error:
        reason = f"unusable file name: {error.strerror}"
    except ValueError as error:
        reason = f"unusable file name: {error}"
    raise BadPictureError(reason)


def _opened(file: io.BytesIO | Path) -> Image.Image:
    # Pillow's own limit can only be set for the whole process; only the header is read while it is off.
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, options: PictureOptions) -> None:
    width, height = image.size
    if width * height > options.max_pixels:
        raise BadPictureError(
            f"too large: {width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"more than {options.max_pixels / 1e6:.0f} (--max-pixels)"
        )
    if not min(width, height):
        raise BadPictureError(f"an empty picture: {width} x {height} pixels")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise BadPictureError(f"too thin: {width} x {height} pixels")


def _as_seen(image: Image.Image, options: PictureOptions) -> Image.Image:
    shown = _eight_bits(image)
    if shown.mode == "La":
        shown = shown.convert("LA")  # the only conversion Pillow has for it
    if _is_transparent(shown):
        shown = _over(shown.convert("RGBA"), options.background)
    elif shown.mode == "P":
        shown = shown.convert("RGBA")
    shown = shown.convert("RGB")
    if options.orientation == "upright":
        turn = _TURNS.get(_orientation(image))
        shown = shown if turn is None else shown.transpose(turn)
    return shown


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale pixels of more than 8 bits to 8 bits; leave any other picture as it is."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_sixteen_bits(image)
    if image.mode == "I":
        raise BadPictureError("pixels of 32-bit integers, whose white is not known: save it with 8 or 16 bits")
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise BadPictureError(f"float pixels from {low:g} to {high:g}: only 0 to 1 has a known white")
        return Image.fromarray(np.rint(values.astype(np.float64) * 255).astype(np.uint8))
    return image


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale by the white of the file; a transparent grey becomes an alpha channel."""
    values = np.asarray(image).astype(np.float64)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = np.rint(values * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns such files round with 8 bits only
        grey = 255 - grey
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def _over(image: Image.Image, background: str) -> Image.Image:
    if background == DROP or image.getchannel("A").getextrema() == (255, 255):
        return image
    behind = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(behind, image)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        # Damaged EXIF data raises much the same as damaged pictures; the pixels are still good.
        return 1


def _ending(source: PictureSource) -> str:
    return f" ({source.suffix.lower()})" if isinstance(source, Path) and source.suffix else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def fit_of(preprocess: str) -> str:
    """Return how a preprocess, as a model's identity describes it, makes a picture square: "crop", "squash", "pad"."""
    try:
        mode = json.loads(preprocess).get("resize_mode")
    except (ValueError, AttributeError):
        return "crop" if "CenterCrop" in preprocess else "squash"
    return {"shortest": "crop", "longest": "pad"}.get(mode, "squash")


def as_model_sees(picture: Image.Image, preprocess: str, size: tuple[int, int] | None) -> Image.Image:
    """Return a picture cropped, squashed or padded to the shape of a model's input, in its own colours.

    Args:
        picture: the picture.
        preprocess: the description of the preprocess in the model's identity.
        size: height and width of the input; None keeps the picture.
    """
    if size is None:
        return picture.convert("RGB")
    shape, fit = (size[1], size[0]), fit_of(preprocess)
    if fit == "crop":
        return ImageOps.fit(picture.convert("RGB"), shape)
    return ImageOps.pad(picture.convert("RGB"), shape) if fit == "pad" else picture.convert("RGB").resize(shape)
