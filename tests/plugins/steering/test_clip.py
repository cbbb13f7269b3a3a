"""Steering CLIP itself: edits at a tower's sites, against a forward with the arithmetic written out."""

import pytest
import torch

from cliplens import edits as ed
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens_plugins import steering as s
from support.tiny import tiny_images, tiny_tokens
from support.tiny_dictionaries import tiny_dictionary


def resid(clip: HookedCLIP, images: torch.Tensor) -> torch.Tensor:
    return clip.vision.read(images, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]


@torch.no_grad()
def test_an_edit_in_a_tower_is_the_arithmetic(clip: HookedCLIP) -> None:
    images = tiny_images()
    dictionary = tiny_dictionary(64, 96, sites=("vision.blocks.1.hook_resid_post",))
    steering = ed.LatentSteering(dictionary, [ed.ablate(range(20)), ed.add([30], 2.0)])
    before = resid(clip, images)
    stock = clip.vision(images)
    with s.steer(clip, steering):
        output = clip.vision(images)
        after = resid(clip, images)
    torch.testing.assert_close(after, steering(before, "image"), rtol=1e-5, atol=1e-5)
    expected = clip.vision.run_with_hooks(
        images, fwd_hooks=[("blocks.1.hook_resid_post", lambda x, hook: steering(x, "image"))]
    )
    torch.testing.assert_close(output, expected)
    assert not torch.allclose(output, stock)
    assert torch.equal(clip.vision(images), stock), "the tower is what it was"
    assert "checked" not in vars(clip.vision)


@torch.no_grad()
@pytest.mark.parametrize(
    "site", ["vision.blocks.0.hook_resid_mid", "text.blocks.2.hook_resid_post", "vision.hook_embedding"]
)
def test_dose_0_is_bit_identical(clip: HookedCLIP, site: str) -> None:
    images, tokens = tiny_images(), tiny_tokens()
    stock = clip(images, tokens)
    dictionary = tiny_dictionary(clip.width(site), 40, sites=(site,))
    with s.steer(clip, ed.LatentSteering(dictionary, [ed.add([1], 9.0)], dose=0.0)):
        assert torch.equal(clip(images, tokens), stock)
    with s.steer(clip, ed.LatentSteering(dictionary, [ed.add([1], 9.0)])):
        assert not torch.allclose(clip(images, tokens), stock)
    assert torch.equal(clip(images, tokens), stock)


@torch.no_grad()
def test_the_embedding_that_makes_the_logits_is_the_edited_one(clip: HookedCLIP) -> None:
    images, tokens = tiny_images(), tiny_tokens()
    both = ("vision.hook_embedding", "text.hook_embedding")
    dictionary = tiny_dictionary(32, 40, sites=both, means=True)
    steering = ed.LatentSteering(dictionary, [ed.add([3], 0.5)])
    with s.steer(clip, steering) as movement:
        text = clip.encode_text(tokens, normalize=True)
        image = clip.encode_image(images, normalize=True)
    assert movement.calls == 2, "both towers are steered"
    assert not torch.allclose(text, clip.encode_text(tokens, normalize=True))
    assert not torch.allclose(image, clip.encode_image(images, normalize=True))
    with s.steer(clip, steering, site="vision.hook_embedding"):
        found = clip(images, tokens)
    image = clip.encode_image(images, normalize=True) + 0.5 * dictionary.decoder[3]
    expected = clip.model.logit_scale.exp() * image @ clip.encode_text(tokens, normalize=True).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_special_positions_are_cls_and_eot(clip: HookedCLIP) -> None:
    tokens = tiny_tokens()
    site = "text.blocks.1.hook_resid_post"
    steering = ed.LatentSteering(tiny_dictionary(48, 40, sites=(site,)), [ed.add([3], 2.0, positions="special")])
    name = "blocks.1.hook_resid_post"
    before = clip.text.read(tokens, [name])[name]
    with s.steer(clip, steering):
        after = clip.text.read(tokens, [name])[name]
    moved = (after != before).any(-1)
    assert torch.equal(moved.int().argmax(1), tokens.argmax(1))
    assert bool((moved.sum(1) == 1).all())


@torch.no_grad()
def test_contexts_nest(clip: HookedCLIP) -> None:
    images = tiny_images()
    stock = clip.vision(images)
    one = ed.LatentSteering(tiny_dictionary(64, 96, sites=("vision.blocks.1.hook_resid_post",)), [ed.add([3], 2.0)])
    two = ed.LatentSteering(
        tiny_dictionary(64, 96, seed=1, sites=("vision.blocks.0.hook_resid_post",)), [ed.add([4], 2.0)]
    )
    with s.steer(clip, one):
        alone = clip.vision(images)
        with s.steer(clip, two):
            both = clip.vision(images)
        torch.testing.assert_close(clip.vision(images), alone)
    assert not torch.allclose(both, alone)
    assert torch.equal(clip.vision(images), stock)


@torch.no_grad()
def test_heads_lie_side_by_side(clip: HookedCLIP) -> None:
    site = "vision.blocks.1.attn.hook_z"
    steering = ed.LatentSteering(tiny_dictionary(64, 96, sites=(site,)), [ed.add([3], 2.0)])
    with s.steer(clip, steering):
        after = clip.vision.read(tiny_images(), ["blocks.1.attn.hook_z"])["blocks.1.attn.hook_z"]
    before = clip.vision.read(tiny_images(), ["blocks.1.attn.hook_z"])["blocks.1.attn.hook_z"]
    torch.testing.assert_close(
        after.flatten(2) - before.flatten(2), (2.0 * steering.dictionary.decoder[3]).expand(4, 5, 64)
    )


def test_what_does_not_fit_is_refused_in_words(clip: HookedCLIP) -> None:
    narrow = ed.LatentSteering(tiny_dictionary(16, 40), [ed.ablate([1])])
    with pytest.raises(InputError, match="without a record of its site"), s.steer(clip, narrow):
        pass
    for kind, words, target, where in (
        (MismatchError, "a site of the dictionary's width, 16", clip, {"site": "vision.hook_embedding"}),
        (UnknownNameError, r"blocks\.1\.hook_resid_post", clip, {"site": "vision.blocks.1.hook_resid_pots"}),
        (InputError, "since part= or window=", clip, {"site": "vision.hook_embedding", "window": (0.0, 1.0)}),
        (
            InputError,
            r"found Linear\. Fix: pass a HookedCLIP",
            torch.nn.Linear(2, 2),
            {"site": "vision.hook_embedding"},
        ),
    ):
        with pytest.raises(kind, match=words), s.steer(target, narrow, **where):
            pass
