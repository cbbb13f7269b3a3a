"""Removing parts of a reconstruction: nothing removed, everything removed, sums of parts, one position only."""

import numpy as np
import pytest
import torch

import cliplens
from cliplens.errors import InputError
from cliplens.sites import Modality
from cliplens.studies import embed_without
from support.tiny import tiny_images, tiny_model, tiny_tokens
from support.tiny_dictionaries import tiny_dictionary

SITES = {
    "embedding": ("vision.hook_embedding", "text.hook_embedding"),
    "block": ("vision.blocks.1.hook_resid_post", "text.blocks.1.hook_resid_post"),
}


def thirds(d_sae: int = 48) -> np.ndarray:
    return np.arange(d_sae) % 3 == np.arange(3)[:, None]


@pytest.fixture(scope="module")
def clip() -> cliplens.HookedCLIP:
    return cliplens.wrap(tiny_model(text={"width": 64, "heads": 4}))


def embedded(clip: cliplens.HookedCLIP, modality: Modality, inputs: torch.Tensor) -> torch.Tensor:
    encode = clip.encode_image if modality == "image" else clip.encode_text
    with torch.no_grad():
        return torch.nn.functional.normalize(encode(inputs).double(), dim=1)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("where", SITES)
@pytest.mark.parametrize("baseline", ["mean", "zero"])
@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_nothing_and_everything_removed(
    clip: cliplens.HookedCLIP, modality: Modality, where: str, baseline: str, normalize: str
) -> None:
    width = 32 if where == "embedding" else 64
    dictionary = tiny_dictionary(width, sites=SITES[where], means=normalize == "none", normalize=normalize)
    inputs = tiny_images(7) if modality == "image" else tiny_tokens(7)
    cases = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    found = embed_without(
        clip,
        dictionary,
        modality,
        inputs,
        thirds(),
        cases,
        baseline=baseline,
        forward_batch=3,  # type: ignore[arg-type]
    )
    assert torch.allclose(found[0], embedded(clip, modality, inputs), atol=1e-6)
    if where == "embedding":  # at a block the other positions still differ
        assert torch.equal(found[1], found[1, :1].expand_as(found[1]))
    assert (found[2] - found[0]).abs().max() > 1e-4
    assert (found[3] - found[0]).abs().max() > 1e-4


def test_parts_add_up_at_the_embedding(clip: cliplens.HookedCLIP) -> None:
    """Removing two parts moves an embedding by the sum of both moves, before it is normalised."""
    dictionary = tiny_dictionary(32, sites=SITES["embedding"])
    images = tiny_images(6)
    acts = embedded(clip, "image", images)
    codes = dictionary.folded("image").encode(acts.float()).double()
    one, two = (codes * torch.as_tensor(part) @ dictionary.decoder.double() for part in thirds()[:2])
    wanted = torch.nn.functional.normalize(acts - one - two + one.mean(0) + two.mean(0), dim=1)
    found = embed_without(clip, dictionary, "image", images, thirds(), np.array([[True, True, False, False]]))
    assert torch.allclose(found[0], wanted, atol=1e-5)


def test_means_come_from_the_reference(clip: cliplens.HookedCLIP) -> None:
    dictionary = tiny_dictionary(32, sites=SITES["embedding"])
    everything = np.ones((1, 4), dtype=bool)
    images, other = tiny_images(5), tiny_images(9, seed=1)
    found = embed_without(clip, dictionary, "image", images, thirds(), everything, reference=other)
    mean = torch.nn.functional.normalize(embedded(clip, "image", other).mean(0), dim=0)
    assert torch.allclose(found[0], mean.expand(5, -1), atol=1e-6)


def test_a_dictionary_of_the_class_token_changes_that_position_alone(clip: cliplens.HookedCLIP) -> None:
    dictionary = tiny_dictionary(64, sites=SITES["block"])
    images = tiny_images(4)
    seen: dict[str, torch.Tensor] = {}

    def keep(activation: torch.Tensor, hook: object) -> None:
        seen["now"] = activation.clone()

    before = clip.vision.read(images, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]  # type: ignore[union-attr]
    with clip.hooks(fwd_hooks=[("vision.blocks.2.hook_resid_pre", keep)]):
        embed_without(clip, dictionary, "image", images, thirds(), np.array([[True, False, False, False]]))
    moved = (seen["now"] - before).abs().amax((0, 2))
    assert moved[0] > 1e-3
    assert moved[1:].max() < 1e-5


def test_cases_of_another_width_are_refused(clip: cliplens.HookedCLIP) -> None:
    dictionary = tiny_dictionary(32, sites=SITES["embedding"])
    with pytest.raises(InputError, match="Fix: pass cases of shape"):
        embed_without(clip, dictionary, "image", tiny_images(2), thirds(), np.ones((1, 3), dtype=bool))


def test_a_dictionary_of_one_tower_is_refused_for_the_other(clip: cliplens.HookedCLIP) -> None:
    dictionary = tiny_dictionary(32, sites=SITES["embedding"][:1])
    with pytest.raises(InputError, match="a dictionary that reads texts"):
        embed_without(clip, dictionary, "text", tiny_tokens(2), thirds(), np.ones((1, 4), dtype=bool))
