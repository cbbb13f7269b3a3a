"""Datasets for SAELens' runner: whole samples, numbers that find their picture again, bad pairs left out."""

import pytest
import torch

from cliplens.errors import InputError, PairsError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs, Quarantine
from cliplens.store import caption_dataset, image_dataset
from support.pictures import noise_pairs
from support.tiny import TinyTokenizer, tiny_preprocess


def test_captions_are_whole_rows(clip: HookedCLIP) -> None:
    pairs = noise_pairs(9)
    made = caption_dataset(pairs, clip)
    assert torch.equal(torch.tensor(made["tokens"]), TinyTokenizer()(pairs.captions))
    assert made["id"][:] == list(pairs.ids)
    empty = Pairs(pairs.ids, None, ["", *pairs.captions[1:]])
    held = Quarantine()
    assert len(caption_dataset(empty, clip, quarantine=held)) == 8
    assert held.reasons == {"p0": "empty caption"}


def test_image_tokens_find_their_picture(clip: HookedCLIP) -> None:
    pairs = noise_pairs(9)
    made = image_dataset(pairs, clip)
    tokens = torch.tensor(made["tokens"])
    assert tokens.shape == (9, 5)
    assert tokens[:, 0].tolist() == [0] * 9
    stock = clip.model.encode_image(torch.stack([tiny_preprocess(p.image) for p in pairs]))
    torch.testing.assert_close(clip.vision(tokens[[4, 2]]), stock[[4, 2]])
    one = torch.tensor(image_dataset(pairs, clip, one_token=True)["tokens"])
    torch.testing.assert_close(clip.vision(one[[4, 2]]), stock[[4, 2]])


def test_a_bad_image_leaves_the_numbers_of_the_others_alone(clip: HookedCLIP) -> None:
    good = noise_pairs(4)
    pairs = Pairs(good.ids, [good[0].image, b"broken", good[2].image, good[3].image], None)
    made = image_dataset(pairs, clip)
    assert made["id"][:] == ["p0", "p2", "p3"]
    assert [row[1] - 1 for row in made["tokens"]] == [0, 2, 3]
    with pytest.raises(PairsError):
        image_dataset(pairs, clip, quarantine=Quarantine(max_bad=0.0))


def test_a_number_without_picture_is_refused(clip: HookedCLIP) -> None:
    image_dataset(noise_pairs(3), clip)
    with pytest.raises(InputError, match=r"indices of the 3 images of 'noise', but found 3 to 3"):
        clip.vision(torch.tensor([[0, 4, 4, 4, 4]]))
    look_up = clip.vision.image_source
    assert look_up(torch.tensor([2, 0])).shape == (2, 3, 32, 32)
    for numbers in ([-1, 2], [0, 3]):
        with pytest.raises(InputError, match=f"but found {numbers[0]} to {numbers[1]}. Fix: make the dataset again"):
            look_up(torch.tensor(numbers))
