from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

import cliplens
from cliplens.errors import InputError, NonFiniteError
from cliplens.registry import find
from cliplens.world import draw_scenes, render
from cliplens_plugins.generators import WorldGenerator, train_factor_reader
from cliplens_plugins.generators.world import WEIGHTS
from cliplens_plugins.generators.world_reader import WEIGHTS as READER
from cliplens_plugins.generators.world_reader import WorldReader

SEED = 700_001
SCENES = draw_scenes(48, seed=SEED)


@cache
def generator() -> WorldGenerator:
    return WorldGenerator()


@cache
def embeddings() -> torch.Tensor:
    return embed(render(SCENES))


def embed(pictures: np.ndarray) -> torch.Tensor:
    clip = cliplens.load("world", device="cpu")
    assert clip.preprocess is not None
    with torch.no_grad():
        return clip.encode_image(torch.stack([clip.preprocess(Image.fromarray(p)) for p in pictures]))


@cache
def drawn() -> np.ndarray:
    return pixels(generator().generate(embeddings(), seed=0))


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def test_the_entry_point_gives_the_generator() -> None:
    assert isinstance(find("generators", "world").make(cliplens.contracts.Generator), WorldGenerator)


def test_pictures_are_of_the_worlds_size() -> None:
    assert drawn().shape == (48, 48, 48, 3)


def test_the_same_seed_gives_the_same_pictures_bit_for_bit() -> None:
    assert np.array_equal(drawn(), pixels(WorldGenerator().generate(embeddings(), seed=0)))


def test_another_seed_gives_other_pictures() -> None:
    other = pixels(generator().generate(embeddings(), seed=1))
    assert (other != drawn()).any(axis=(1, 2, 3)).all()


def test_length_of_the_condition_does_not_matter() -> None:
    doubled = pixels(generator().generate(2.0 * embeddings(), seed=0))
    assert np.abs(doubled.astype(int) - drawn().astype(int)).max() <= 1


def test_each_pictures_own_embedding_draws_it_best() -> None:
    """In the layout of the true picture, with nothing but its embedding to go by."""
    found = []
    for anchor in range(4):
        for tilt in range(3):
            rows = np.flatnonzero((SCENES["position"] == anchor) & (SCENES["tilt"] == tilt))
            if len(rows) < 2:
                continue
            ours = pixels(generator().generate(embeddings()[rows], seed=0, anchor=anchor, tilt=tilt)).astype(float)
            true = render(SCENES.rows(rows)).astype(float)
            error = np.abs(ours[:, None] - true[None]).mean(axis=(2, 3, 4))
            found += (error.argmin(axis=1) == np.arange(len(rows))).tolist()
    assert len(found) > 30
    assert np.mean(found) > 0.9


def test_a_layout_can_be_chosen() -> None:
    same = embeddings()[:1].expand(4, -1)
    corners = [pixels(generator().generate(same, seed=0, anchor=a))[0] for a in range(4)]
    assert all((a != b).any() for n, a in enumerate(corners) for b in corners[:n])


@pytest.mark.slow
def test_an_independent_judge_reads_what_the_embedding_held() -> None:
    judge = train_factor_reader(steps=800)
    scenes = draw_scenes(256, seed=SEED)
    read = judge.read(generator().generate(embed(render(scenes)), seed=0))
    assert min(np.mean(read[name] == scenes[name]) for name in ("shape", "colour", "size", "count", "fill")) > 0.9


def test_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 2_500_000


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="of width 64"):
        generator().generate(torch.ones(1, 65), seed=0)
    with pytest.raises(InputError, match=r"found \['guidance'\]"):
        generator().generate(embeddings()[:1], seed=0, guidance=2.0)
    broken = embeddings()[:3].clone()
    broken[1, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="row 1"):
        generator().generate(broken, seed=0)


def test_the_reader_that_ships_reads_what_true_pictures_show() -> None:
    scenes = draw_scenes(128, seed=SEED + 1)
    read = WorldReader().read([Image.fromarray(picture) for picture in render(scenes)])
    assert min(float(np.mean(read[name] == scenes[name])) for name in read) > 0.95
    assert READER.stat().st_size < 1_000_000
