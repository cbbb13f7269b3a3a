"""Pictures of every kind are opened as a person sees them, or refused with the reason."""

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliplens.errors import BadPictureError, InputError
from cliplens.pictures import BadPicture, PictureOptions, open_picture

SIZE = 12
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16", "F"]
FORMATS = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["L", "P"],
    "BMP": ["1", "L", "P", "RGB"],
    "PPM": ["1", "L", "RGB"],
    "JPEG2000": ["L", "LA", "RGB", "RGBA"],
    "TGA": ["L", "RGB", "RGBA"],
}


def ramp(low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Grey values from `low` to `high`, float64 [SIZE, SIZE]."""
    return np.add.outer(np.linspace(low, high, SIZE), np.linspace(low, high, SIZE)) / 2


def as_mode(values: np.ndarray, mode: str) -> Image.Image:
    """A grey picture of values from 0 to 1 in a mode."""
    if mode == "I;16":
        return Image.fromarray(np.rint(values * 65535).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(values.astype(np.float32))
    grey = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        return grey.convert(mode)
    return grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "HSV", "RGBX") else grey.convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L")).astype(float) / 255


@given(
    st.sampled_from([(kind, mode) for kind, modes in FORMATS.items() for mode in modes if mode != "1"]),
    st.floats(0, 0.45),
    st.floats(0.55, 1),
)
@settings(max_examples=60, deadline=None)
def test_a_grey_ramp_looks_the_same_in_every_mode_and_format(how: tuple[str, str], low: float, high: float) -> None:
    kind, mode = how
    values = ramp(low, high)
    seen = open_picture(saved(as_mode(values, mode), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert seen.mode == "RGB"
    assert np.abs(grey(seen) - values).max() < 0.03


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_in_memory_becomes_rgb(mode: str) -> None:
    seen = open_picture(as_mode(ramp(), mode))
    assert (seen.mode, seen.size) == ("RGB", (SIZE, SIZE))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "RGBa"])
def test_transparent_pixels_show_the_background(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    image = clear.convert("RGBA" if mode == "PA" else mode)
    if mode == "PA":
        image = Image.new("P", (4, 4))
        image.putalpha(0)
    assert open_picture(image).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(image, PictureOptions(background="#102030")).getpixel((0, 0)) == (16, 32, 48)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_transparent_colour_shows_the_background(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (0, 0, 0)).convert(mode)
    key = (0, 0, 0) if mode == "RGB" else 0
    data = saved(image, "PNG", transparency=key)
    assert open_picture(data).getpixel((1, 1)) == (255, 255, 255)
    assert open_picture(data, PictureOptions(background="drop")).getpixel((1, 1)) == (0, 0, 0)


def test_dropping_transparency_shows_the_hidden_colour() -> None:
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert open_picture(image, PictureOptions(background="drop")).getpixel((0, 0)) == (10, 20, 30)


def test_opaque_pictures_keep_their_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")):
        assert np.array_equal(np.asarray(open_picture(saved(image, "PNG"))), pixels)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_a_picture_upright(turn: int, kind: str) -> None:
    upright = Image.new("L", (20, 10), 255)
    upright.paste(0, (0, 0, 10, 5))  # the upper left quarter is black
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(stored.convert("RGB"), kind, exif=exif)
    seen, as_stored = open_picture(data), open_picture(data, PictureOptions(orientation="stored"))
    assert seen.size == upright.size
    assert np.abs(grey(seen) - grey(upright)).mean() < 0.1
    assert as_stored.size == stored.size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = open_picture(data).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray(np.full((4, 4), 2.0, np.float32)), "float pixels from 2 to 2"),
        (Image.fromarray(np.full((4, 4), -0.5, np.float32)), "float pixels from -0.5"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "float pixels from nan"),
        (Image.fromarray(np.full((4, 4), 300, np.int32)), "pixels of 32-bit integers"),
        (Image.new("RGB", (5000, 1)), "too thin: 5000 x 1 pixels"),
        (BadPicture("a list"), "a list"),
        (b"", "unreadable image"),
        (b"GIF89a", "unreadable image"),
        (Path("/nowhere/a.png"), "missing file"),
        (Path("/"), "no file but a folder or device"),
        (Path("/tmp/" + "n" * 300 + ".png"), "unusable file name: File name too long"),
        (Path("/tmp/a\0b.png"), "missing file"),
        (Path(__file__), "unreadable image: not an image Pillow knows (.py)"),
    ],
)
def test_pictures_without_a_known_range_have_a_reason(image: object, reason: str) -> None:
    with pytest.raises(BadPictureError) as caught:
        open_picture(image)  # type: ignore[arg-type]
    assert caught.value.reason.startswith(reason)


def test_large_pictures_are_refused_before_they_are_decoded() -> None:
    data = saved(Image.new("1", (20_000, 10_000)), "PNG")
    with pytest.raises(BadPictureError, match=r"too large: 20000 x 10000 is 200 megapixels, more than 134"):
        open_picture(data)
    with pytest.raises(BadPictureError, match=r"more than 0 \(--max-pixels\)"):
        open_picture(saved(Image.new("1", (20, 10)), "PNG"), PictureOptions(max_pixels=100))


@given(st.binary(max_size=400), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_refused_or_opened(noise: bytes, at: int) -> None:
    whole = saved(as_mode(ramp(), "RGB"), "PNG")
    with contextlib.suppress(BadPictureError):
        assert open_picture(whole[:at] + noise + whole[at + len(noise) :]).mode == "RGB"


@pytest.mark.parametrize("wrong", [{"background": "nocolour"}, {"max_pixels": 0}])
def test_options_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Fix: pass --"):
        PictureOptions(**wrong)  # type: ignore[arg-type]


def tiff(values: np.ndarray, bits: int, white_is_zero: bool) -> bytes:
    """A grey TIFF, uncompressed, of 8, 12 or 16 bits per pixel."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(p).to_bytes(3, "big") for p in packed)
    else:
        data = values.astype("u1" if bits == 8 else "<u2").tobytes()
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: int(not white_is_zero),
        277: 1,
        278: height,
        279: len(data),
    }
    tags[273] = 8 + 2 + 12 * 9 + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


@pytest.mark.parametrize(("bits", "white_is_zero"), [(8, False), (8, True), (12, False), (16, False), (16, True)])
def test_a_grey_tiff_is_as_bright_as_its_white_says(bits: int, white_is_zero: bool) -> None:
    share = np.linspace(0, 1, 8).repeat(4).reshape(8, 4)
    stored = np.rint((1 - share if white_is_zero else share) * (2**bits - 1))
    shown = np.asarray(open_picture(tiff(stored, bits, white_is_zero)))[..., 0]
    np.testing.assert_allclose(shown, share * 255, atol=1)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_transparent_grey_shows_the_background(mode: str) -> None:
    held = io.BytesIO()
    Image.new(mode, (2, 2), 200).save(held, "PNG", transparency=200)
    assert open_picture(held.getvalue()).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(held.getvalue(), PictureOptions(background="blue")).getpixel((0, 0)) == (0, 0, 255)
