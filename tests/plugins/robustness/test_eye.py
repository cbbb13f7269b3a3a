"""Pixels, pre-activations and losses on a tiny real model."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cliplens
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens_plugins.robustness import (
    Budget,
    Eye,
    PixelClassifier,
    PixelScale,
    Reader,
    caption,
    class_targeted,
    class_untargeted,
    clean_up,
    feature,
    margins,
    pgd,
    pixel_scale,
    zero_shot,
)
from cliplens_plugins.robustness.defences import soft_codes
from support.tiny import tiny_preprocess
from support.tiny_dictionaries import tiny_dictionary

FINAL = ("vision.hook_embedding", "text.hook_embedding")
INSIDE = ("vision.blocks.1.hook_resid_post", "text.blocks.1.hook_resid_post")


def pixels(n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_pixels_go_through_the_models_own_preprocess(clip: HookedCLIP) -> None:
    """A picture of the model's size gives the same inputs by its preprocess and by its pixels."""
    levels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    wanted = tiny_preprocess(Image.fromarray(levels))
    scale = pixel_scale(tiny_preprocess)
    own = torch.from_numpy(levels).permute(2, 0, 1)[None] / 255
    assert torch.allclose(scale.to_inputs(own)[0], wanted, atol=1e-5)
    assert torch.allclose(scale.to_pixels(wanted[None]), own, atol=1e-5)


def test_every_source_of_models_has_a_preprocess_that_can_be_taken_apart() -> None:
    world = cliplens.load("world")
    scale = pixel_scale(world.preprocess)
    assert torch.allclose(scale.scale, torch.full((3,), 4.0), atol=1e-4)
    assert torch.allclose(scale.offset, torch.full((3,), -2.0), atol=1e-4)


@pytest.mark.parametrize(
    ("preprocess", "says"),
    [
        (None, "a model with a preprocess"),
        (lambda picture: torch.full((3, 4, 4), (picture.getpixel((0, 0))[0] / 255) ** 3), "a factor and an offset"),
        (lambda picture: torch.zeros(3, 4, 4), "a factor and an offset"),
        (lambda picture: torch.zeros(4, 4), "3 height width"),
    ],
)
def test_a_preprocess_that_is_no_normalisation_is_refused(preprocess: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        pixel_scale(preprocess)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
@pytest.mark.parametrize("sites", [FINAL, INSIDE])
def test_codes_are_those_of_the_dictionary_and_pre_activations_come_before(
    clip: HookedCLIP, architecture: str, sites: tuple[str, str]
) -> None:
    width = clip.width(sites[0])
    dictionary = tiny_dictionary(width, sites=sites, architecture=architecture, means=True)
    view = Eye(clip, dictionary).look(pixels())
    assert view.acts is not None
    rows = view.acts.flatten(0, 1)
    wanted = dictionary.folded("image").encode(rows)
    assert torch.equal(view.codes.flatten(0, 1), wanted)
    pre = view.pre.flatten(0, 1)
    assert torch.allclose(pre[wanted > 0], wanted[wanted > 0], atol=1e-5)  # a firing latent's code is its value
    assert (pre[wanted == 0] != 0).all()  # and a silent latent still has one


@pytest.mark.parametrize("sites", [FINAL, INSIDE])
@pytest.mark.parametrize("aim", [class_untargeted, class_targeted])
def test_silent_latents_pass_a_gradient(clip: HookedCLIP, sites: tuple[str, str], aim) -> None:  # type: ignore[no-untyped-def]
    dictionary = tiny_dictionary(clip.width(sites[0]), sites=sites, architecture="topk")
    eye = Eye(clip, dictionary)
    clean = pixels(2)
    with torch.no_grad():
        view = eye.look(clean)
        goal = eye.look(pixels(2, seed=1)).pre
    silent = (view.codes.amax((0, 1)) == 0) & (eye.look(pixels(2, seed=2)).codes.amax((0, 1)) == 0)
    assert silent.any()
    moved = pixels(2, seed=2).requires_grad_(True)
    value, _ = aim(eye, silent, goal)(moved, torch.arange(2))
    (gradient,) = torch.autograd.grad(value.sum(), moved)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()
    (codes,) = torch.autograd.grad(eye.look(moved).codes[..., silent].sum(), moved, allow_unused=True)
    assert codes is None or (codes == 0).all()  # the codes themselves pass none


def test_a_class_is_moved_more_than_by_chance_and_towards_its_goal(clip: HookedCLIP) -> None:
    dictionary = tiny_dictionary(32, sites=FINAL, architecture="topk")
    eye, clean = Eye(clip, dictionary), pixels(3)
    with torch.no_grad():
        pre = eye.look(clean).pre
        goal = eye.look(pixels(3, seed=4)).pre
    mask = torch.arange(48) < 16
    budget = Budget(16 / 255, 10, 4 / 255)
    away = pgd(class_untargeted(eye, mask, pre), clean, budget)
    noise = (pre - eye.views(clean + 16 / 255 * torch.randn(clean.shape).sign()).pre)[..., mask].square().sum((1, 2))
    assert (away.value > noise).all()
    near = pgd(class_targeted(eye, mask, goal), clean, budget)
    assert (near.value > -(pre - goal)[..., mask].square().sum((1, 2))).all()


def test_losses_are_what_they_say(clip: HookedCLIP) -> None:
    eye, given, rows = Eye(clip), pixels(3), torch.arange(3)
    prototypes = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    labels = torch.tensor([0, 1, 2])
    with torch.no_grad():
        unit = clip.encode_image(eye.inputs(given), normalize=True)
        raw = clip.encode_image(eye.inputs(given))
        cosine = unit @ prototypes.T
        for n in range(3):
            others = [float(cosine[n, c]) for c in range(4) if c != labels[n]]
            wanted = max(others) - float(cosine[n, labels[n]])
            assert float(zero_shot(eye, prototypes, labels)(given, rows)[0][n]) == pytest.approx(wanted, abs=1e-6)
        entropy, kept = zero_shot(eye, prototypes, labels, loss="ce", scale=10.0)(given, rows)
        assert torch.allclose(entropy, torch.nn.functional.cross_entropy(10 * cosine, labels, reduction="none"))
        assert torch.allclose(kept, margins(unit, prototypes, labels))
        assert torch.allclose(feature(eye, raw + 1.0)(given, rows)[0], torch.full((3,), 32.0), rtol=1e-4)
        assert torch.allclose(caption(eye, unit[[1, 2, 0]])(given, rows)[0], (unit * unit[[1, 2, 0]]).sum(1))


def test_a_classifier_of_pixels_is_what_libraries_of_attacks_take(clip: HookedCLIP) -> None:
    foolbox = pytest.importorskip("foolbox")
    prototypes = torch.nn.functional.normalize(torch.randn(4, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    model = PixelClassifier(Eye(clip), prototypes)
    given, eps = pixels(3), 8 / 255
    labels = model(given).argmax(1)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.LinfPGD(steps=10, abs_stepsize=1 / 255)(wrapped, given, labels, epsilons=eps)[1]
    assert ((theirs - given).abs() <= eps + 1e-6).all()
    aim = zero_shot(model.eye, prototypes, labels, loss="ce")
    ours = pgd(aim, given, Budget(eps), batch=3)
    with torch.no_grad():
        assert (ours.value >= aim(theirs, torch.arange(3))[1] - 5e-3).all()


def test_a_clean_up_changes_the_latents_it_names_and_keeps_the_error(clip: HookedCLIP) -> None:
    dictionary = tiny_dictionary(32, sites=FINAL, architecture="topk")
    eye = Eye(clip, dictionary)
    view = eye.views(pixels(4))
    assert view.acts is not None
    rows = view.acts.flatten(0, 1)
    latents = torch.tensor([3, 7, 11])
    kept, dropped = (clean_up(Reader(dictionary), latents, view.acts, keep_error=keep) for keep in (True, False))
    codes = Reader(dictionary).codes(rows)
    after = codes.clone()
    after[:, latents] = codes[:, latents].mean(0)
    assert torch.allclose(dropped(rows), dictionary.folded("image").decode(after), atol=1e-5)
    assert torch.allclose(kept(rows) - rows, (after - codes) @ dictionary.decoder, atol=1e-5)
    nothing = clean_up(Reader(dictionary), latents[:0], view.acts, keep_error=True)
    assert torch.allclose(nothing(rows), rows, atol=1e-6)
    assert torch.allclose(eye.views(pixels(4), nothing).unit, view.unit, atol=1e-5)


def test_straight_through_codes_are_exact_and_pass_gradients() -> None:
    dictionary = tiny_dictionary(32, architecture="topk")
    reader = Reader(dictionary)
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    soft = soft_codes(reader, rows)
    assert torch.allclose(soft, reader.codes(rows))
    pre = reader.read(rows)[1]
    silent = (soft == 0) & (pre > 0)
    assert silent.any()
    (gradient,) = torch.autograd.grad(soft[silent].sum(), rows)
    assert (gradient != 0).any()


def test_a_scale_goes_both_ways() -> None:
    scale = PixelScale(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, -1.0, 0.5]))
    given = pixels(2)
    assert torch.allclose(scale.to_pixels(scale.to_inputs(given)), given, atol=1e-6)
