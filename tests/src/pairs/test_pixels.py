"""Pictures stay bytes until they are on the model's device; the values are those of the preprocess, bit for bit."""

import pickle
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from cliplens.pairs import Decoder, Pairs
from cliplens.stream import decoded_batches

SIZES = [(31, 57), (224, 224), (400, 300), (50, 50), (13, 200)]


def pictures(mode: str = "RGB") -> list[Image.Image]:
    draw = np.random.default_rng(0)
    made = [Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    return [picture.convert(mode) for picture in made]


def pairs_of(images: list[Any]) -> Pairs:
    return Pairs([f"p{i}" for i in range(len(images))], images, [f"picture {i}" for i in range(len(images))], name="x")


def preprocesses() -> dict[str, Any]:
    normalise = transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    cut = [transforms.Resize(40), transforms.CenterCrop(40)]
    return {
        "open_clip": open_clip.image_transform(64, is_train=False),
        "open_clip squash": open_clip.image_transform(64, is_train=False, resize_mode="squash"),
        "open_clip longest": open_clip.image_transform(64, is_train=False, resize_mode="longest"),
        "torchvision": transforms.Compose([*cut, transforms.ToTensor(), normalise]),
        "normalise is not last": transforms.Compose([*cut, transforms.ToTensor(), normalise, torch.nn.Identity()]),
        "a function": lambda picture: transforms.ToTensor()(picture.resize((20, 20))),
        "grey": transforms.Compose([*cut, transforms.Grayscale(3), transforms.ToTensor(), normalise]),
        "one channel": transforms.Compose(
            [*cut, transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize(0.5, 0.2)]
        ),
    }


class Noisy(transforms.ToTensor):
    """Does more than its name says."""

    def __call__(self, pic: Any) -> torch.Tensor:
        return super().__call__(pic) * 0.5


Noisy.__name__ = "ToTensor"


@pytest.mark.parametrize("name", preprocesses())
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pictures_are_the_preprocess_bit_for_bit(name: str, mode: str) -> None:
    preprocess, images = preprocesses()[name], pictures(mode)
    decoded = Decoder(pairs_of(images), preprocess, True)[np.arange(len(images))]
    wanted = torch.stack([preprocess(image.convert("RGB")) for image in images])
    assert decoded.images is not None
    assert torch.equal(decoded.images, wanted)
    sent_as_bytes = decoded.pictures is not None and decoded.pictures.values.dtype == torch.uint8
    assert sent_as_bytes == (name in ("open_clip", "open_clip squash", "open_clip longest", "torchvision", "grey"))


def test_a_step_that_does_more_than_its_name_says_is_applied_whole() -> None:
    preprocess = transforms.Compose(
        [transforms.Resize((20, 20)), Noisy(), transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))]
    )
    images = pictures()
    decoded = Decoder(pairs_of(images), preprocess, False)[np.arange(len(images))]
    assert decoded.images is not None
    assert torch.equal(decoded.images, torch.stack([preprocess(image) for image in images]))


def test_a_bad_pair_leaves_with_its_picture() -> None:
    images: list[Any] = [*pictures()[:2], b"no picture", *pictures()[2:]]
    preprocess = preprocesses()["open_clip"]
    decoded = Decoder(pairs_of(images), preprocess, True)[np.arange(len(images))]
    assert decoded.indices.tolist() == [0, 1, 3, 4, 5]
    assert decoded.images is not None
    assert torch.equal(decoded.images, torch.stack([preprocess(image) for image in pictures()]))


def test_worker_processes_send_what_this_process_decodes() -> None:
    decoder = Decoder(pairs_of(pictures()), preprocesses()["open_clip"], True)
    batches = [np.array([0, 3]), np.array([4, 1, 2])]
    here, sent = (list(decoded_batches(decoder, batches, workers)) for workers in (0, 1))
    for a, b in zip(here, sent, strict=True):
        assert a.images is not None
        assert b.images is not None
        assert torch.equal(a.images, b.images)
        assert a.ids == b.ids


def test_worker_processes_send_bytes_not_floats() -> None:
    decoder = Decoder(pairs_of(pictures()), preprocesses()["open_clip"], False)
    decoded = decoder[np.arange(len(SIZES))]
    assert decoded.images is not None
    assert len(pickle.dumps(decoded.pictures)) < 0.3 * decoded.images.numel() * 4
