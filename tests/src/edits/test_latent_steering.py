"""Steering activations: what a dictionary's edit does to a row, against arithmetic by hand."""

import pytest
import torch
from torch import Tensor

from cliplens import edits as ed
from cliplens.errors import MismatchError
from cliplens.sae import Dictionary
from cliplens.sae.architectures.two_decoders import TwoDecodersSAE, TwoDecodersSAEConfig
from cliplens.sites import Modality
from support.tiny_dictionaries import tiny_dictionary


def acts(batch: int = 3, pos: int = 5, d_in: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(batch, pos, d_in, generator=torch.Generator().manual_seed(seed))


def encoded(dictionary: Dictionary, x: Tensor, modality: str = "text") -> Tensor:
    rows: Tensor = dictionary.folded(modality).encode(x.flatten(0, 1))  # type: ignore[arg-type]
    return rows.unflatten(0, x.shape[:2])


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_the_error_term_is_kept(means: bool, architecture: str) -> None:
    dictionary, x = tiny_dictionary(means=means, architecture=architecture), acts()
    edits = [ed.ablate([0, 1, 2]), ed.add([5], 2.0)]
    codes = encoded(dictionary, x)
    assert bool((codes[..., :3] > 0).any()), "the edit has something to do"
    expected = x + (ed.apply_edits(codes, edits) - codes) @ dictionary.decoder
    found = ed.LatentSteering(dictionary, edits)(x, "text")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_without_the_error_term_the_reconstruction_is_left() -> None:
    dictionary, x = tiny_dictionary(means=True), acts()
    edits = [ed.ablate([0, 1, 2])]
    found = ed.LatentSteering(dictionary, edits, use_error_term=False)(x, "image")
    reader = dictionary.folded("image")
    expected = reader.decode(ed.apply_edits(reader.encode(x.flatten(0, 1)), edits)).unflatten(0, (3, 5))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_each_modality_is_read_with_its_own_mean() -> None:
    dictionary, x = tiny_dictionary(means=True), acts()
    one = ed.LatentSteering(dictionary, [ed.ablate(range(48))])
    assert not torch.allclose(one(x, "image"), one(x, "text"))


def test_a_dictionary_that_rescales_each_row_is_read_at_that_scale() -> None:
    dictionary, x = tiny_dictionary(normalize="layer_norm"), acts()
    sae = dictionary.folded("text")
    codes = sae.encode(x.flatten(0, 1))
    before = sae.decode(codes)  # which uses up the scale that encoding kept
    sae.encode(x.flatten(0, 1))
    expected = x + (sae.decode(ed.apply_edit(codes, ed.ablate([0, 1]))) - before).unflatten(0, (3, 5))
    torch.testing.assert_close(
        ed.LatentSteering(dictionary, [ed.ablate([0, 1])])(x, "text"), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_rows_that_do_not_change_stay_bit_for_bit(dtype: torch.dtype) -> None:
    dictionary, x = tiny_dictionary(), acts().to(dtype)
    codes = encoded(dictionary, x.float())
    found = ed.LatentSteering(dictionary, [ed.ablate([7])])(x, "text")
    silent = codes[..., 7] == 0
    assert bool(silent.any())
    assert bool((~silent).any())
    assert found.dtype == dtype
    assert torch.equal(found[silent], x[silent])
    assert not torch.equal(found[~silent], x[~silent])


@pytest.mark.parametrize("use_error_term", [True, False])
def test_dose_0_gives_the_very_tensor_back(use_error_term: bool) -> None:
    x = acts()
    one = ed.LatentSteering(tiny_dictionary(), [ed.add([1], 5.0)], dose=0.0, use_error_term=use_error_term)
    assert one(x, "text") is x
    assert one.idle


def test_positions() -> None:
    dictionary, x = tiny_dictionary(), acts()
    special = torch.tensor([0, 2, 4])
    row = 3.0 * dictionary.decoder[1]

    def moved(positions: object) -> Tensor:
        steering = ed.LatentSteering(dictionary, [ed.add([1], 3.0, positions=positions)])  # type: ignore[arg-type]
        return steering(x, "text", special) - x

    at_special = torch.zeros(3, 5, dtype=torch.bool)
    at_special[torch.arange(3), special] = True
    for positions, mask in (
        ("all", torch.ones(3, 5, dtype=torch.bool)),
        ("special", at_special),
        ("others", ~at_special),
    ):
        torch.testing.assert_close(moved(positions), mask[..., None] * row, rtol=1e-5, atol=1e-5)
    counted = torch.zeros(3, 5, dtype=torch.bool)
    counted[:, [1, 4]] = True
    torch.testing.assert_close(moved((1, -1)), counted[..., None] * row, rtol=1e-5, atol=1e-5)
    with pytest.raises(MismatchError, match="positions from 0 to 4"):
        moved((5,))
    with pytest.raises(MismatchError, match="a known CLS or EOT position"):
        ed.LatentSteering(dictionary, [ed.add([1], 3.0, positions="special")])(x, "text")


def test_a_reference_for_all_or_one_per_sample() -> None:
    dictionary, x = tiny_dictionary(), acts(pos=1)
    other = acts(pos=1, seed=5)
    reference = encoded(dictionary, other)[:, 0]
    latents = list(range(48))
    each = ed.LatentSteering(dictionary, [ed.swap(latents)], reference=reference)(x, "text")
    codes = encoded(dictionary, x)
    torch.testing.assert_close(each, x + (reference[:, None] - codes) @ dictionary.decoder, rtol=1e-4, atol=1e-4)
    same = ed.LatentSteering(dictionary, [ed.swap(latents)], reference=reference[0])(x, "text")
    torch.testing.assert_close(same[0], each[0])
    assert not torch.allclose(same[1], each[1])


def test_adding_needs_no_codes_and_gives_the_same() -> None:
    dictionary, x = tiny_dictionary(means=True), acts()
    quick = ed.LatentSteering(dictionary, [ed.add([3, 4], 1.5)])
    slow = ed.LatentSteering(dictionary, [ed.add([3, 4], 1.5), ed.scale([9], 1.0)])  # a scale by one needs the codes
    torch.testing.assert_close(quick(x, "text"), slow(x, "text"), rtol=1e-5, atol=1e-5)


def test_gradients_flow_through() -> None:
    x = acts().requires_grad_()
    ed.LatentSteering(tiny_dictionary(), [ed.scale([1, 2], 3.0)])(x, "text").sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_a_direction_is_added_as_it_is() -> None:
    x, direction = acts(), torch.arange(32.0)
    found = ed.DirectionSteering(direction, dose=0.5)(x, "image")
    torch.testing.assert_close(found, x + 0.5 * direction)
    assert ed.DirectionSteering(direction, dose=0.0)(x, "image") is x


def test_another_width_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"width 32, the dictionary's d_in, but found width 16"):
        ed.LatentSteering(tiny_dictionary(), [ed.ablate([1])])(acts(d_in=16), "text")


@pytest.mark.parametrize("modality", ["image", "text"])
def test_each_modality_is_decoded_by_its_own_decoder(modality: Modality) -> None:
    torch.manual_seed(0)
    sae = TwoDecodersSAE(TwoDecodersSAEConfig(d_in=32, d_sae=48, k=8))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_()
    dictionary, x = Dictionary(sae.requires_grad_(False)), acts()
    edits = [ed.add([20], 5.0), ed.ablate(range(10))]
    side = dictionary.folded(modality)
    codes = side.encode(x.flatten(0, 1))
    expected = x + (side.decode(ed.apply_edits(codes, edits)) - side.decode(codes)).unflatten(0, (3, 5))
    torch.testing.assert_close(ed.LatentSteering(dictionary, edits)(x, modality), expected, rtol=1e-4, atol=1e-4)


def test_one_reference_per_sample_covers_all_its_tiles() -> None:
    dictionary, x = tiny_dictionary(), acts(6)
    reference = torch.rand(2, 48, generator=torch.Generator().manual_seed(1))
    found = ed.LatentSteering(dictionary, [ed.swap(range(48))], reference=reference)(x, "image")
    for sample in range(2):
        one = ed.LatentSteering(dictionary, [ed.swap(range(48))], reference=reference[sample : sample + 1])
        tiles = slice(3 * sample, 3 * sample + 3)
        torch.testing.assert_close(found[tiles], one(x[tiles], "image"))


def test_references_that_cannot_be_matched_to_samples_are_refused() -> None:
    steering = ed.LatentSteering(tiny_dictionary(), [ed.swap([1])], reference=torch.rand(2, 48))
    with pytest.raises(MismatchError, match="a reference for each of 3 samples"):
        steering(acts(3), "image")


def test_the_old_name_of_the_error_term_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="'error_term' of LatentSteering is now 'use_error_term'"):
        steering = ed.LatentSteering(tiny_dictionary(), [ed.add([1], 5.0)], error_term=False)  # type: ignore[call-arg]
    assert not steering.use_error_term
    assert not steering.at_dose(0.5).use_error_term


@pytest.mark.parametrize("error", [True, False])
@pytest.mark.parametrize("dose", [0.25, 0.5, 2.0])
def test_the_dose_reaches_every_edit(dose: float, error: bool) -> None:
    dictionary, x = tiny_dictionary(), acts()
    edits = [ed.add([5], 2.0), ed.scale([0, 1], 3.0)]
    codes = encoded(dictionary, x)
    moved = codes.clone()
    moved[..., 5] += 2.0 * dose
    moved[..., :2] *= 1 + 2.0 * dose
    expected = x + (moved - codes) @ dictionary.decoder
    if not error:
        expected = dictionary.folded("text").decode(moved.flatten(0, 1)).unflatten(0, x.shape[:2])
    found = ed.LatentSteering(dictionary, edits, dose=dose, use_error_term=error)(x, "text")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
