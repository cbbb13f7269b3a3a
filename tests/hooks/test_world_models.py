"""The shipped weights do what docs/world.md says."""

from functools import cache

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image

from cliplens.contracts import LoadedModel
from cliplens.errors import InputError, UnknownNameError
from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, TEXT_ONLY, captions, draw_scenes, lexicon, render
from cliplens.world.assets import ASSETS, MERGES
from cliplens_hooks.models.world import CONTEXT, NAMES, WorldModels, pixels_to_tensor, world_tokenizer
from cliplens_hooks.training.world_figures import (
    Embedded,
    distinct_scenes,
    embed,
    gap,
    probe_accuracy,
    retrieval,
    swap_accuracy,
    variance_shares,
)

CPU = torch.device("cpu")
SEED = 600_000
ERASED = {"image": ("position", "grain"), "text": ("frame", "tail")}
"""What the default model does not keep, on the side that knows it."""


@cache
def loaded(name: str) -> LoadedModel:
    return WorldModels().load(name, None, device=CPU, dtype=torch.float32)


@cache
def embedded(name: str) -> Embedded:
    return embed(loaded(name).module, world_tokenizer(), draw_scenes(2048, seed=SEED))


@cache
def probes(name: str, side: str) -> dict[str, float]:
    found = embedded(name)
    columns = {factor: found.scenes[factor] for factor in FACTORS}
    return probe_accuracy(getattr(found, side), columns, train=1408)


@cache
def shares(name: str, side: str) -> dict[str, float]:
    return variance_shares(getattr(embedded(name), side), embedded(name).scenes)


def chance(factor: str) -> float:
    return 1 / len(FACTORS[factor].values)


@pytest.mark.parametrize("name", NAMES)
def test_captions_find_their_pictures(name: str) -> None:
    found = retrieval(embed(loaded(name).module, world_tokenizer(), distinct_scenes(256, seed=SEED)))
    assert min(found) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_with_one_factor_changed_fits_worse(name: str) -> None:
    found = swap_accuracy(loaded(name).module, world_tokenizer(), draw_scenes(128, seed=SEED))
    assert found.keys() == set(SHARED)
    assert min(found.values()) > 0.93, found


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("name", NAMES)
def test_shared_factors_are_read_on_both_sides(name: str, side: str) -> None:
    assert min(probes(name, side)[factor] for factor in SHARED) > 0.9


def test_image_factors_are_kept_by_the_image_side() -> None:
    kept = [factor for factor in IMAGE_ONLY if factor not in ERASED["image"]]
    assert min(probes("world", "image")[factor] for factor in kept) > 0.9
    assert min(shares("world", "image")[factor] for factor in kept) > 0.02


def test_text_factors_are_kept_by_the_text_side() -> None:
    kept = [factor for factor in TEXT_ONLY if factor not in ERASED["text"]]
    assert min(probes("world", "text")[factor] for factor in kept) > 0.9
    assert min(shares("world", "text")[factor] for factor in kept) > 0.02


@pytest.mark.parametrize(("side", "others"), [("image", TEXT_ONLY), ("text", IMAGE_ONLY)])
@pytest.mark.parametrize("name", NAMES)
def test_single_modality_factors_are_absent_from_the_other_modality(
    name: str, side: str, others: tuple[str, ...]
) -> None:
    for factor in others:
        assert probes(name, side)[factor] == pytest.approx(chance(factor), abs=0.06)


@pytest.mark.parametrize("side", ["image", "text"])
def test_erased_factors_are_near_chance_and_have_no_variance(side: str) -> None:
    for factor in ERASED[side]:
        assert probes("world", side)[factor] < chance(factor) + 0.2
        assert shares("world", side)[factor] < 0.01


def test_the_plain_twin_holds_no_single_modality_variance() -> None:
    assert sum(shares("world-plain", "image")[factor] for factor in IMAGE_ONLY) < 0.1
    assert sum(shares("world-plain", "text")[factor] for factor in TEXT_ONLY) < 0.05


def test_the_modality_gap_is_as_documented() -> None:
    assert 0.02 < gap(embedded("world")) < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_open_clip_opens_the_folder_by_itself(name: str) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{ASSETS / name}")
    picture = render(draw_scenes(1))
    image = preprocess(Image.fromarray(picture[0]))[None]
    tokens = open_clip.get_tokenizer(f"local-dir:{ASSETS / name}", bpe_path=str(MERGES))(captions(draw_scenes(1)))
    ours = loaded(name)
    assert ours.preprocess is not None
    assert ours.tokenizer is not None
    assert torch.equal(image[0], ours.preprocess(Image.fromarray(picture[0])))
    assert torch.equal(tokens, ours.tokenizer(captions(draw_scenes(1))))
    with torch.no_grad():
        assert torch.equal(model.eval().encode_image(image), ours.module.encode_image(image))


def test_pixels_in_bulk_are_preprocessed_as_one_by_one() -> None:
    pixels = render(draw_scenes(8))
    preprocess = loaded("world").preprocess
    assert preprocess is not None
    assert torch.equal(pixels_to_tensor(pixels), torch.stack([preprocess(Image.fromarray(p)) for p in pixels]))


def test_words_fall_into_the_same_pieces_as_in_all_of_clip() -> None:
    pruned, full = world_tokenizer(), SimpleTokenizer()
    for word in lexicon():
        pieces = [[t.decoder[i] for i in t.encode(word)] for t in (pruned, full)]
        assert pieces[0] == pieces[1]


def test_no_caption_is_cut() -> None:
    tokenizer = world_tokenizer()
    tokens = tokenizer(captions(draw_scenes(3000, seed=SEED)))
    assert tokens.shape == (3000, CONTEXT)
    assert (tokens[:, -1] == 0).any()
    assert (tokens.max(dim=1).values == tokenizer.eot_token_id).all()


def test_all_embedded_files_are_small() -> None:
    sizes = [path.stat().st_size for path in ASSETS.rglob("*") if path.suffix in (".safetensors", ".gz")]
    assert len(sizes) == 3
    assert sum(sizes) < 6_000_000


def test_identity_tells_the_twins_apart() -> None:
    one, other = loaded("world").identity, loaded("world-plain").identity
    assert one.name == "world"
    assert one.weights_sha256 != other.weights_sha256
    assert one.tokenizer_sha256 == other.tokenizer_sha256


def test_dtype_and_cards() -> None:
    half = WorldModels().load("world", None, device=CPU, dtype=torch.float64)
    assert next(half.module.parameters()).dtype == torch.float64
    assert [card.name for card in WorldModels().models()] == list(NAMES)


def test_other_names_and_tags_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'world'"):
        WorldModels().load("wrld", None, device=CPU, dtype=torch.float32)
    with pytest.raises(InputError, match=r"no `pretrained` beside 'world'.*found pretrained='openai'"):
        WorldModels().load("world", "openai", device=CPU, dtype=torch.float32)


def test_pictures_of_the_seed_are_new_to_the_models() -> None:
    assert SEED < 1_000_000
    assert np.array_equal(render(draw_scenes(1, seed=SEED)), render(draw_scenes(3, seed=SEED).rows(slice(0, 1))))
