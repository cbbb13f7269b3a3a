"""Short prompts of the embedded world become captions that say the same."""

import numpy as np
import pytest
import torch

import cliplens
from cliplens.errors import InputError
from cliplens.world import FACTORS, captions, draw_scenes, lexicon
from cliplens_plugins.generators import WorldGenerator
from cliplens_plugins.generators.world_prompts import long_form
from cliplens_plugins.generators.world_reader import WorldReader

VALUES = {name: FACTORS[name].values for name in ("shape", "colour")}


@pytest.mark.parametrize("seed", range(4))
def test_every_colour_and_shape_is_said_and_the_rest_is_the_seeds(seed: int) -> None:
    for colour in VALUES["colour"]:
        for shape in VALUES["shape"]:
            found = long_form(f"a {colour} {shape}", seed=seed).split()
            assert {colour, shape, "one"} <= set(found)
            assert set(found) <= set(lexicon())
    rest = {" ".join(long_form(f"a {c} star", seed=seed).split()[:6]) for c in VALUES["colour"]}
    assert len(rest) == 1, "prompts of one seed differ in what they say alone"


def test_whole_captions_stay_as_they_are() -> None:
    for caption in captions(draw_scenes(200, seed=5)):
        assert long_form(caption) == caption


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a red ring", {"one", "hollow", "red", "circle"}),
        ("two azure boxes", {"two", "azure", "boxes"}),
        ("big stars", {"two", "big", "stars"}),
        ("A Sad Sketch of three hollow golden crescents", {"sad", "sketch", "three", "hollow", "golden", "crescents"}),
    ],
)
def test_other_words_for_the_same(prompt: str, words: set[str]) -> None:
    assert words <= set(long_form(prompt).split())


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a red elephant", "'elephant'"),
        ("a rde star", "write red"),
        ("something red", "something"),
        ("red", "names a shape"),
        ("", "names a shape"),
        ("a red blue star", "one colour"),
        ("a solid ring", "one fill"),
    ],
)
def test_what_the_world_cannot_draw_is_refused(prompt: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        long_form(prompt)


@torch.no_grad()
def test_pictures_of_short_prompts_show_what_they_say() -> None:
    clip = cliplens.load("world", device="cpu")
    said = [(c, s) for c in range(0, 8, 3) for s in range(0, 8, 3)]
    short = [f"a {VALUES['colour'][c]} {VALUES['shape'][s]}" for c, s in said]
    prompts = WorldGenerator().long_forms(short, seed=1)
    drawn = WorldGenerator().generate(clip.encode_text(clip.tokenizer(prompts)), seed=0)  # type: ignore[misc]
    read = WorldReader().read(drawn)
    assert np.mean(read["colour"] == [c for c, _ in said]) == 1
    assert np.mean(read["shape"] == [s for _, s in said]) == 1
