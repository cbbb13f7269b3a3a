"""Maps of positions: equal to slow versions by finite differences, and tested against random patches."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import cliplens
from cliplens.analysis import drawn, explain_pair, grid_of, latent_map, masking_test, position_map
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP, HookedTower
from support.families import reduced_inputs, reduced_model
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens
from support.tiny_dictionaries import tiny_dictionary

SMALL = 1e-6


def double(**options: Any) -> HookedCLIP:
    return cliplens.wrap(tiny_model(**options).double(), tokenizer=TinyTokenizer())


def given(clip: HookedCLIP, side: str) -> tuple[HookedTower, Tensor, Tensor]:
    images, tokens = tiny_images(1).double(), tiny_tokens(1)
    with torch.no_grad():
        seen, read = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    return (clip.vision, images, read) if side == "vision" else (clip.text, tokens, seen)  # type: ignore[return-value]


@torch.no_grad()
def slopes(tower: HookedTower, inputs: Tensor, towards: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """The pattern of a block and the derivative of the similarity by each of its entries, by finite differences."""
    name = f"blocks.{layer}.attn.hook_pattern"
    pattern = tower.run_with_cache(inputs, names_filter=name)[1][name][0]
    many = inputs.repeat_interleave(pattern.numel(), 0)
    nudge = SMALL * torch.eye(pattern.numel(), dtype=torch.float64).view(-1, *pattern.shape)
    ends = []
    for sign in (1, -1):
        with tower.hooks([(name, lambda acts, hook, sign=sign: acts + sign * nudge)]):
            ends.append((tower.encode(many)[1] * towards).sum(-1))
    return pattern, ((ends[0] - ends[1]) / (2 * SMALL)).view_as(pattern)


@pytest.mark.parametrize("side", ["vision", "text"])
@pytest.mark.parametrize("first_block", [0, -1])
def test_relevance_equals_its_definition_by_finite_differences(side: str, first_block: int) -> None:
    tower, inputs, towards = given(double(), side)
    layers = range(first_block % tower.cfg.n_layers, tower.cfg.n_layers)
    relevance = torch.eye(tower.cfg.n_ctx, dtype=torch.float64)
    for layer in layers:
        pattern, slope = slopes(tower, inputs, towards, layer)
        relevance = relevance + (pattern * slope).clamp_min(0).mean(0) @ relevance
    place = int(tower.special_position(inputs)[0])
    found = position_map(tower, inputs, towards, first_block=first_block)[0]
    torch.testing.assert_close(found, relevance[place], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("side", ["vision", "text"])
@torch.no_grad()
def test_rollout_and_attention_equal_their_definitions(side: str) -> None:
    tower, inputs, _ = given(double(), side)
    _, cache = tower.run_with_cache(inputs)
    place = int(tower.special_position(inputs)[0])
    spread = torch.eye(tower.cfg.n_ctx, dtype=torch.float64)
    for layer in range(tower.cfg.n_layers):
        spread = (0.5 * cache["pattern", layer][0].mean(0) + 0.5 * torch.eye(tower.cfg.n_ctx)) @ spread
    torch.testing.assert_close(position_map(tower, inputs, method="rollout")[0], spread[place])
    last = cache["pattern", tower.cfg.n_layers - 1][0].mean(0)[place]
    torch.testing.assert_close(position_map(tower, inputs, method="attention")[0], last)
    assert float(spread[place].sum()) == pytest.approx(1)


def test_towers_that_average_positions_are_read_over_all_they_average() -> None:
    clip = double(vision={"pool_type": "avg"})
    tower, inputs, _ = given(clip, "vision")
    _, cache = tower.run_with_cache(inputs)
    patches = cache["pattern", 2][0].mean(0)[1:].mean(0)
    torch.testing.assert_close(position_map(tower, inputs, method="attention")[0], patches.detach())


@pytest.mark.parametrize("method", ["relevance", "attention", "rollout"])
def test_attention_poolers_are_read(method: str) -> None:
    clip = cliplens.wrap(reduced_model("ViT-B-16-SigLIP"))
    images, tokens = reduced_inputs("ViT-B-16-SigLIP")
    vision = clip.vision
    assert vision is not None
    with torch.no_grad():
        read = clip.encode_text(tokens, normalize=True)
    found = position_map(vision, images, read, method=method)
    assert found.shape == (2, vision.cfg.n_ctx)
    assert bool((found >= 0).all())
    assert bool((found.sum(1) > 0).all())


def test_gradients_of_the_weights_are_left_alone() -> None:
    clip = double()
    tower, inputs, towards = given(clip, "vision")
    position_map(tower, inputs, towards)
    assert all(p.grad is None for p in clip.model.parameters())
    clip.model.requires_grad_(False)
    assert float(position_map(tower, inputs, towards).sum()) > 0


def residual(d_model: int, side: str) -> Any:
    sites = (f"{side}.blocks.1.hook_resid_post",)
    made = tiny_dictionary(d_model, 24, sites=sites)
    return cliplens.Dictionary(made.sae.double(), None, made.provenance)


@pytest.mark.parametrize("side", ["vision", "text"])
def test_effects_of_a_latent_equal_finite_differences(side: str) -> None:
    clip = double()
    tower, inputs, towards = given(clip, side)
    dictionary = residual(tower.cfg.d_model, side)
    hook = "blocks.1.hook_resid_post"
    with torch.no_grad():
        rows = tower.run_with_cache(inputs, names_filter=hook)[1][hook][0]
        codes = dictionary.sae.encode(rows)
    latent = int(codes.sum(0).argmax())
    plain = latent_map(tower, inputs, dictionary, [latent])[0, 0]
    torch.testing.assert_close(plain, codes[:, latent])
    found = latent_map(tower, inputs, dictionary, [latent], towards)[0, 0]
    for place in range(len(rows)):
        step = SMALL * dictionary.sae.W_dec[latent]

        def moved(sign: float, place: int = place, step: Tensor = step) -> float:
            def nudge(acts: Tensor, hook: Any) -> Tensor:
                acts = acts.clone()
                acts[:, place] += sign * step
                return acts

            with torch.no_grad(), tower.hooks([(hook, nudge)]):
                return float((tower.encode(inputs)[1] * towards).sum())

        slope = (moved(1) - moved(-1)) / (2 * SMALL)
        assert float(found[place]) == pytest.approx(slope * float(codes[place, latent]), rel=1e-4, abs=1e-8)


def test_refusals_name_the_way_out() -> None:
    clip = double()
    tower, inputs, towards = given(clip, "vision")
    with pytest.raises(UnknownNameError, match="relevance"):
        position_map(tower, inputs, method="relevanc")
    with pytest.raises(InputError, match="a direction per input"):
        position_map(tower, inputs)
    with pytest.raises(MismatchError, match="one direction per input"):
        inspect.unwrap(position_map)(tower, inputs, towards.repeat(2, 1))
    with pytest.raises(InputError, match="first_block between -3 and 2"):
        position_map(tower, inputs, towards, first_block=3)
    with pytest.raises(InputError, match="hooks inside its blocks"):
        position_map(cliplens.wrap(reduced_model("convnext_base")).vision, tiny_images(1))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="latents from 0 to 23"):
        latent_map(tower, inputs, residual(64, "vision"), [24])
    with pytest.raises(InputError, match="one activation per patch"):
        latent_map(tower, inputs, tiny_dictionary(32, 8).sae.double(), [0], hook="hook_embedding")
    with pytest.raises(InputError, match="which form no rectangle"):
        grid_of(tower, torch.zeros(3))
    only = cliplens.load("world", device="cpu")
    only.text = None
    with pytest.raises(InputError, match="both towers"):
        explain_pair(only, Image.new("RGB", (8, 8)), "a")


def test_the_masking_test_tells_a_planted_map_from_others() -> None:
    """A model that sees one patch only: the map of that patch passes, that of another does not."""
    clip = cliplens.load("world", device="cpu")
    generator = torch.Generator().manual_seed(0)
    image, weight = torch.rand(3, 48, 48, generator=generator), torch.randn(3 * 48 * 48, 64, generator=generator)
    weight.view(3, 48, 48, 64)[:, 8:].zero_()
    weight.view(3, 48, 48, 64)[:, :, 8:].zero_()
    bias = torch.randn(64, generator=generator)

    def encode_image(images: Tensor, normalize: bool = True) -> Tensor:
        return F.normalize(images.flatten(1) @ weight + bias, dim=-1)

    clip.encode_image = encode_image  # type: ignore[method-assign]
    clip.encode_text = lambda tokens, normalize=True: encode_image(image[None])  # type: ignore[method-assign]
    right, wrong = torch.zeros(6, 6), torch.zeros(6, 6)
    right[0, 0], wrong[5, 5] = 1, 1
    tokens = torch.zeros(4, dtype=torch.int64)
    found = masking_test(clip, image, tokens, right, share=1 / 36, draws=20)
    assert found.passed
    assert found.marked > found.high >= found.low
    assert "more than random patches" in str(found)
    other = masking_test(clip, image, tokens, wrong, share=1 / 36, draws=20)
    assert not other.passed
    assert other.marked == pytest.approx(0)
    assert "no more than" in str(other)


def test_an_explanation_shows_itself() -> None:
    clip = cliplens.load("world", device="cpu")
    pair = cliplens.read_pairs("world:4")[1]
    found = explain_pair(clip, pair.image, pair.caption, draws=5)
    assert found.image.shape == (4, 4)
    assert len(found.words) == len(found.text) == len(pair.caption.split())
    assert "Greying the 19%" in str(found)
    picture = found.drawn()
    assert picture.width == 448
    assert picture.height > 448
    assert found._repr_png_().startswith(b"\x89PNG")


def test_shades_keep_the_picture_visible_and_tell_signs_apart() -> None:
    grey = Image.new("RGB", (20, 20), "grey")
    shaded = np.asarray(drawn(grey, np.array([[1.0, -1.0], [0.0, 0.5]])), dtype=int)
    red, blue, plain = shaded[100, 100], shaded[100, 400], shaded[400, 100]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert plain.tolist() == [128, 128, 128]
    assert drawn(grey, np.zeros((2, 2))).getpixel((5, 5)) == (128, 128, 128)
