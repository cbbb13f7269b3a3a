"""Decoding: bad pairs leave both sides at once, and the bulk way gives the very pixels of the slow one."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cliplens.errors import PairsError
from cliplens.pairs import BadPairError, Decoder, Pairs, Quarantine, open_image, tokenised
from cliplens.records import Pair
from support.pictures import Column, png


class Normalize:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


class Compose:
    """torchvision's ToTensor and Normalize, as they are defined."""

    transforms = (None, Normalize())

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = (
            torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        )
        mean, std = torch.tensor(Normalize.mean), torch.tensor(Normalize.std)
        return pixels.sub_(mean[:, None, None]).div_(std[:, None, None])


class Flipping(Compose):
    def __call__(self, image: Image.Image) -> Tensor:
        return super().__call__(image).flip(2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.open(io.BytesIO(png())).convert(mode)
    assert open_image(Pair("a", image, None)).mode == "RGB"
    if mode != "CMYK":
        assert open_image(Pair("a", png(mode=mode), None)).mode == "RGB"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (None, "no image"),
        (Path("/nowhere/at/all.png"), "missing file"),
        (b"not an image", "unreadable image"),
        (b"", "unreadable image"),
        (png()[:-300], "unreadable image"),
        (png()[:40], "unreadable image"),
    ],
)
def test_pictures_that_cannot_be_opened_have_a_reason(image: object, reason: str) -> None:
    with pytest.raises(BadPairError) as caught:
        open_image(Pair("the one", image, "x"))  # type: ignore[arg-type]
    assert caught.value.reason.startswith(reason)
    assert "the one" in str(caught.value)


def test_bad_pairs_leave_both_sides() -> None:
    images = [png(), b"broken", png(), png(), png()]
    pairs = Pairs("abcde", images, ["1", "2", " ", None, "5"])
    decoded = Decoder(pairs, Compose(), captions=True)[np.arange(5)]
    assert decoded.ids == ("a", "e")
    assert decoded.captions == ("1", "5")
    assert decoded.indices.tolist() == [0, 4]
    assert decoded.images is not None
    assert torch.equal(decoded.images[1], Compose()(open_image(pairs[4])))
    assert [(p.id, r) for p, r in decoded.bad] == [
        ("b", "unreadable image: not an image Pillow knows"),
        ("c", "empty caption"),
        ("d", "no caption"),
    ]


def test_bad_captions_do_not_matter_if_only_images_are_read() -> None:
    pairs = Pairs("ab", [png(), png()], [" ", None])
    assert Decoder(pairs, Compose(), captions=False)[np.arange(2)].ids == ("a", "b")
    assert Decoder(Pairs("a", None, ["x"]), None, captions=True)[np.arange(1)].images is None


def test_bulk_decoding_equals_decoding_one_by_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    pairs = Pairs("abcdef", Column(pixels), ["x", "", "x", "x", "x", "x"])
    for preprocess in (Compose(), Flipping()):
        decoded = Decoder(pairs, preprocess, captions=True)[np.array([5, 1, 0, 3])]
        assert decoded.ids == ("f", "a", "d")
        assert decoded.images is not None
        slow = torch.stack([preprocess(Image.fromarray(pixels[i])) for i in (5, 0, 3)])
        assert torch.equal(decoded.images, slow)


def test_quarantine_keeps_each_bad_pair_once_and_in_the_file(tmp_path: Path) -> None:
    held = Quarantine(tmp_path / "run" / "quarantine.jsonl", max_bad=0.5)
    assert (tmp_path / "run" / "quarantine.jsonl").read_text() == ""
    held.add(Pair("a", Path("a.png"), "<b>ä</b>"), "missing file")
    held.add(Pair("a", Path("a.png"), "<b>ä</b>"), "again")
    held.add(Pair("b", b"123", None), "no caption")
    lines = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert lines == [
        {"id": "a", "image": "a.png", "caption": "<b>ä</b>", "reason": "missing file"},
        {"id": "b", "image": "3 bytes", "caption": None, "reason": "no caption"},
    ]
    assert (held.count, "a" in held) == (2, True)
    held.check(4)
    with pytest.raises(PairsError):
        held.check(3)


@pytest.mark.parametrize(
    ("max_bad", "total", "allowed"), [(0.01, 3403, 34), (0.01, 20, 1), (0.0, 20, 0), (0.29, 100, 29), (1.0, 5, 5)]
)
def test_how_many_may_be_bad(max_bad: float, total: int, allowed: int) -> None:
    assert Quarantine(max_bad=max_bad).allowed(total) == allowed


def test_too_many_bad_pairs_list_the_first_ten() -> None:
    held = Quarantine(max_bad=0.1)
    for i in range(12):
        held.add(Pair(f"p{i}", None, "x"), "no image")
    held.check(120)
    with pytest.raises(
        PairsError, match=r"at most 11 bad pairs among 119.*found 12: p0 \(no image\);.*p9 \(no image\); and 2 more"
    ):
        held.check(119)


def test_no_pair_left_is_too_many_even_when_one_may_be_bad() -> None:
    held = Quarantine()
    held.add(Pair("a", None, "x"), "no image")
    with pytest.raises(PairsError):
        held.check(1)


class Words:
    """A tokenizer in CLIP's manner: start 1, words, end 2, zeros."""

    def __call__(self, captions: list[str], context_length: int = 6) -> Tensor:
        out = torch.zeros(len(captions), context_length, dtype=torch.int64)
        for row, caption in zip(out, captions, strict=True):
            ids = [1, *(3 + len(w) for w in caption.split()), 2][:context_length]
            if len(ids) == context_length:
                ids[-1] = 2
            row[: len(ids)] = torch.tensor(ids)
        return out


def test_cut_captions_are_counted_and_full_ones_are_not() -> None:
    captions = ["a b", "a b c d", "a b c d e", "a b c d e f g"]
    assert tokenised(captions, Words()).truncated == 2
    assert tokenised(captions, lambda c: Words()(list(c))).truncated == 3
