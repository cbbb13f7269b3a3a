"""The training script works; what it reaches is measured by benchmarks/generator.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cliplens
from cliplens.world import FACTORS, draw_scenes, render
from cliplens_plugins.generators import WorldGenerator, load_factor_reader, train_factor_reader
from cliplens_plugins.generators.painter import PainterConfig
from cliplens_plugins.generators.world_factor_reader import FACTORS_READ
from cliplens_plugins.generators.world_training import PainterRecipe, learn_to_draw, learn_to_read, save_painter

TINY = PainterRecipe(
    config=PainterConfig(width=16, layers=1, heads=2), drawing_steps=3, reading_steps=2, batch=4, scenes=64
)


def test_both_parts_train_and_the_generator_opens_the_file(tmp_path: Path) -> None:
    painter, told = learn_to_draw(TINY)
    painter = learn_to_read(painter, told, cliplens.load("world", device="cpu"), TINY)
    save_painter(painter, tmp_path / "painter.safetensors", TINY)
    again = WorldGenerator(tmp_path / "painter.safetensors")
    assert again.painter.config == TINY.config
    assert len(again.generate(torch.ones(2, 64), seed=0)) == 2


def test_training_twice_gives_the_same_weights() -> None:
    one, other = learn_to_draw(TINY)[0].state_dict(), learn_to_draw(TINY)[0].state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_judge_reads_every_factor_and_is_kept(tmp_path: Path) -> None:
    images = [Image.fromarray(picture) for picture in render(draw_scenes(5))]
    first = load_factor_reader(tmp_path / "judge.safetensors", steps=2)
    read = first.read(images)
    assert set(read) == set(FACTORS_READ)
    assert all(values.max() < len(FACTORS[name].values) for name, values in read.items())
    kept = load_factor_reader(tmp_path / "judge.safetensors", steps=2).read(images)
    assert all(np.array_equal(read[name], kept[name]) for name in read)


@pytest.mark.slow
def test_the_judge_learns() -> None:
    scenes = draw_scenes(512, seed=700_002)
    read = train_factor_reader(steps=600).read([Image.fromarray(picture) for picture in render(scenes)])
    assert min(np.mean(read[name] == scenes[name]) for name in FACTORS_READ) > 0.9
