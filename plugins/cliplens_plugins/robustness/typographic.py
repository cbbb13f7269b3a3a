"""Typographic attacks: the name of a wrong class is written on the picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cliplens import keys

_SEED = 311
_SMALLEST = 6
CASES = ("wrong word", "scrambled word", "empty box", "own word")
"""Kind of text. Scrambled letters are the control of reading, an empty box the control of covering the picture."""
Embed = Callable[[Sequence[Image.Image]], Float[Tensor, "sample d_embed"]]


def write_word(picture: Image.Image, word: str, sample_id: str, *, letters: bool = True, seed: int = 0) -> Image.Image:
    """Return the picture with a word on it: dark on a light box or light on a dark one.

    Place, size and colours follow from the id and the seed alone, so that another word stands at the same corner. The
    font is Pillow's own. The word is made smaller until it fits into the picture.

    Args:
        picture: the picture; it is not changed.
        word: what to write.
        sample_id: id of the picture.
        letters: False draws the box and leaves it empty.
        seed: another seed gives other places.

    >>> picture = Image.new("RGB", (48, 48))
    >>> write_word(picture, "dog", "a").tobytes() == write_word(picture, "dog", "a").tobytes() != picture.tobytes()
    True
    """
    draw = keys.hashed_uniform(keys.text_keys([f"{seed} {i} {sample_id}" for i in range(4)]), _SEED)
    width, height = picture.size
    size = max(_SMALLEST, round(height * (0.14 + 0.12 * float(draw[0]))))
    font, box = _fitted(word, size, 0.94 * width)
    pad = max(1, round(size * 0.12))
    wide, high = box[2] - box[0] + 2 * pad, box[3] - box[1] + 2 * pad
    left = round(float(draw[1]) * max(0, width - wide))
    top = round(float(draw[2]) * max(0, height - high))
    paper, ink = ("white", "black") if draw[3] < 0.5 else ("black", "white")
    written = picture.convert("RGB").copy()
    canvas = ImageDraw.Draw(written)
    canvas.rectangle((left, top, left + wide - 1, top + high - 1), fill=paper)
    if letters:
        canvas.text((left + pad - box[0], top + pad - box[1]), word, fill=ink, font=font)
    return written


def scrambled(word: str, sample_id: str) -> str:
    """Return the letters of a word in another order, drawn by id; the word itself where there is no other order.

    >>> sorted(scrambled("star", "a")) == sorted("star"), scrambled("star", "a") != "star", scrambled("aa", "a")
    (True, True, 'aa')
    """
    for attempt in range(20):
        draw = keys.hashed_uniform(keys.text_keys([f"{attempt} {n} {sample_id}" for n in range(len(word))]), _SEED)
        found = "".join(word[i] for i in np.argsort(draw, kind="stable"))
        if found != word:
            return found
    return word


def wrong_classes(
    ids: Sequence[str], labels: Int64[np.ndarray, " sample"], classes: int
) -> Int64[np.ndarray, " sample"]:
    """Return a class other than its own for each picture, drawn by id."""
    draw = keys.hashed_uniform(keys.text_keys(ids), _SEED + 1)
    return (labels + 1 + np.floor(draw * (classes - 1)).astype(np.int64)) % classes


@dataclass(frozen=True)
class Typographic:
    """Answers of a model on pictures with a word on them."""

    predicted: dict[str, Int64[np.ndarray, " sample"]]
    """Class said, for `clean` and each of `CASES`."""
    labels: Int64[np.ndarray, " sample"]
    wrong: Int64[np.ndarray, " sample"]

    def right(self, case: str) -> Bool[np.ndarray, " sample"]:
        """Return where the object is recognised."""
        return self.predicted[case] == self.labels

    def word(self, case: str) -> Bool[np.ndarray, " sample"]:
        """Return where the model says the wrong word that was drawn, or would have been."""
        return self.predicted[case] == self.wrong


def case_of(picture: Image.Image, case: str, own: str, wrong: str, sample_id: str, *, seed: int = 0) -> Image.Image:
    """Return a picture with what one of `CASES` writes on it."""
    word = {"own word": own, "scrambled word": scrambled(wrong, sample_id)}.get(case, wrong)
    return write_word(picture, word, sample_id, letters=case != "empty box", seed=seed)


def typographic(
    embed: Embed,
    pictures: Sequence[Image.Image],
    ids: Sequence[str],
    labels: Int64[np.ndarray, " sample"],
    classes: Sequence[str],
    prototypes: Float[Tensor, "class d_embed"],
    *,
    seed: int = 0,
) -> Typographic:
    """Return what a model says of pictures, clean and with each of `CASES` written on them.

    Args:
        embed: from pictures to embeddings.
        pictures: pictures as they are before resizing.
        ids: their ids, which decide words and places.
        labels: the class of each.
        classes: names of the classes, which are written.
        prototypes: one unit-norm embedding per class.
        seed: seed of the places.
    """
    wrong = wrong_classes(ids, labels, len(classes))

    def said(shown: Sequence[Image.Image]) -> Int64[np.ndarray, " sample"]:
        found = torch.nn.functional.normalize(embed(shown).double(), dim=1) @ prototypes.double().T
        return found.argmax(1).cpu().numpy()

    predicted = {"clean": said(pictures)}
    for case in CASES:
        shown = [
            case_of(picture, case, classes[own], classes[other], sample_id, seed=seed)
            for picture, own, other, sample_id in zip(pictures, labels, wrong, ids, strict=True)
        ]
        predicted[case] = said(shown)
    return Typographic(predicted, labels, wrong)


def _fitted(word: str, size: int, width: float) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, list[int]]:
    """Return the largest font up to a size in which a word is no wider than that, and the box of the word."""
    while True:
        font = ImageFont.load_default(size)
        box = [round(v) for v in font.getbbox(word)]
        if box[2] - box[0] <= width or size <= _SMALLEST:
            return font, box
        size -= 1
