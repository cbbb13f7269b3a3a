"""Why an image and a caption match, as a picture: the image and the words, shaded by a map."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from cliplens.analysis.maps import MaskingTest, masking_test, position_map
from cliplens.arrays import check_embeddings
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower, patch_grid, special_mask
from cliplens.pictures import as_model_sees

_SIDE, _LINE, _MARGIN = 448, 26, 10
_RAISES, _LOWERS = (200, 30, 30), (30, 80, 200)
_STRONGEST = 0.7
"""Opacity of the strongest position: the picture stays visible under it."""


@dataclass(frozen=True)
class Explanation:
    """Maps of one image and one caption, and the test of the image's map. A notebook shows it as a picture."""

    picture: Image.Image
    """The picture as the model sees it: cropped, squashed or padded to its shape."""
    similarity: float
    """Cosine of image and caption, in [-1, 1]."""
    image: Float[np.ndarray, "row column"]
    """A number per patch."""
    words: tuple[str, ...]
    text: Float[np.ndarray, " word"]
    """A number per token of the caption, without start, end and padding."""
    test: MaskingTest
    method: str

    def drawn(self) -> Image.Image:
        """Return the shaded picture above the shaded words: red where the number is high, blue where it is below 0."""
        return drawn(self.picture, self.image, self.words, self.text)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.drawn().save(file, "PNG")
        return file.getvalue()

    def __str__(self) -> str:
        words = ", ".join(f"{w} {v:.3f}" for w, v in zip(self.words, self.text, strict=True))
        return f"similarity {self.similarity:.3f}; words by {self.method}: {words}. {self.test}."


def explain_pair(
    clip: HookedCLIP,
    picture: Image.Image,
    caption: str,
    *,
    method: str = "relevance",
    first_block: int = 0,
    draws: int = 40,
    seed: int = 0,
) -> Explanation:
    """Return maps of an image and a caption that show why they match; see `cliplens.analysis.position_map`.

    Args:
        clip: a model with both towers, a preprocess and a tokenizer.
        picture: the image.
        caption: the caption.
        method: "relevance", "attention" or "rollout".
        first_block: count blocks from this one on.
        draws: random choices of patches in the control of the image's map.
        seed: seed of the control.

    Raises:
        InputError: the model lacks a tower, a preprocess or a tokenizer, has no hooks inside its blocks, or has no
            rectangle of patches; or the caption is empty.
        NonFiniteError: an embedding holds nan or inf.
    """
    vision, text = clip.vision, clip.text
    if vision is None or text is None:
        raise InputError(
            expected="a model with both towers", found="one tower only", fix="use position_map of the tower"
        )
    if not caption.strip():
        raise InputError(expected="a caption with words", found=repr(caption), fix="pass for example 'a red ring'")
    images, tokens = vision.checked(picture), text.checked(caption)
    with torch.no_grad():
        seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    check_embeddings(torch.cat([seen, read]), "embeddings of the picture and of the caption")
    of_image = position_map(vision, images, read, method=method, first_block=first_block)[0]
    of_text = position_map(text, tokens, seen, method=method, first_block=first_block)[0]
    grid = grid_of(vision, of_image)
    words, values = words_of(text, tokens, of_text)
    return Explanation(
        as_model_sees(picture, clip.identity.preprocess, vision.cfg.image_size),
        float((seen * read).sum()),
        grid.cpu().double().numpy(),
        words,
        values,
        masking_test(clip, images[0], tokens[0], grid, draws=draws, seed=seed),
        method,
    )


def grid_of(tower: HookedTower, positions: Float[torch.Tensor, " pos"]) -> Float[torch.Tensor, "row column"]:
    """Return the patches of a map of an image in rows and columns, without class token and registers.

    Raises:
        InputError: the patches form no rectangle.
    """
    patches = positions[tower.n_special :] if len(positions) == tower.cfg.n_ctx else positions
    grid = patch_grid(len(patches), tower.cfg.image_size)
    if grid is None:
        raise InputError(
            expected="patches in rows and columns",
            found=f"{len(patches)} patches, which form no rectangle",
            fix="read position_map, which gives them one by one",
        )
    return patches.view(grid)


def words_of(
    tower: HookedTower, tokens: "torch.Tensor", positions: Float[torch.Tensor, " pos"]
) -> tuple[tuple[str, ...], Float[np.ndarray, " word"]]:
    """Return the words of a caption [1, context] and their numbers, without start, end and padding."""
    places = (~special_mask(tower, tokens)[0, : len(positions)]).nonzero()[:, 0]
    words = tower.to_str_tokens(tokens[0])
    return tuple(words[int(p)].strip() for p in places), positions[places].cpu().double().numpy()


def drawn(
    picture: Image.Image,
    grid: Float[np.ndarray, "row column"],
    words: tuple[str, ...] = (),
    values: Float[np.ndarray, " word"] | None = None,
) -> Image.Image:
    """Return a picture shaded by a map, above words shaded by theirs.

    Each of the two is shaded by its own largest number; red is above 0, blue below.
    """
    scale = _SIDE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    shade = Image.fromarray(_shades(grid), "RGBA").resize(size, Image.Resampling.NEAREST)
    top = Image.alpha_composite(picture.convert("RGBA").resize(size, Image.Resampling.LANCZOS), shade).convert("RGB")
    if values is None or not words:
        return top
    font = ImageFont.load_default(size=16)
    places, lines = _laid_out(words, font, size[0])
    sheet = Image.new("RGB", (size[0], size[1] + lines * _LINE + 2 * _MARGIN), "white")
    sheet.paste(top, (0, 0))
    draw = ImageDraw.Draw(sheet, "RGBA")
    for word, shade_of, (left, line, width) in zip(words, _shades(values[None])[0].tolist(), places, strict=True):
        y = size[1] + _MARGIN + line * _LINE
        draw.rectangle((left - 2, y, left + width + 2, y + _LINE - 4), fill=tuple(shade_of))
        draw.text((left, y + 2), word, fill="black", font=font)
    return sheet


def _shades(values: Float[np.ndarray, "row column"]) -> np.ndarray:
    """Return the colour and opacity of each number, uint8 [row, column, 4]."""
    largest = float(np.abs(values).max(initial=0.0))
    opacity = np.abs(values) / largest * _STRONGEST * 255 if largest > 0 else np.zeros_like(values)
    colours = np.where((values >= 0)[..., None], np.array(_RAISES), np.array(_LOWERS))
    shades: np.ndarray = np.concatenate([colours, opacity[..., None]], -1).round().astype(np.uint8)
    return shades


def _laid_out(
    words: tuple[str, ...], font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int
) -> tuple[list[tuple[int, int, int]], int]:
    """Return left edge, line and width of each word, and the number of lines."""
    places, left, line = [], _MARGIN, 0
    for word in words:
        wide = round(font.getlength(word))
        if left > _MARGIN and left + wide > width - _MARGIN:
            left, line = _MARGIN, line + 1
        places.append((left, line, wide))
        left += wide + 8
    return places, line + 1
