import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP

from cliplens.world import captions, draw_scenes, lexicon
from cliplens.world.assets import MERGES
from cliplens.world.factors import SAID
from cliplens_hooks.models.world import world_tokenizer
from cliplens_hooks.training.world import RECIPES, Bags, Recipe, pruned_merges, save_merges, save_model, schedule, train
from cliplens_hooks.training.world_figures import Embedded, gap, probe_accuracy, retrieval, variance_shares

FEW = {"steps": 2, "batch": 8, "locked_steps": 0}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_and_saves_what_open_clip_opens(name: str, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], **FEW)
    seen: list[int] = []
    model = train(recipe, report=lambda step, _: seen.append(step))
    save_model(model, tmp_path, recipe=recipe)
    again = open_clip.create_model(f"local-dir:{tmp_path}")
    assert isinstance(again, CLIP)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.half().float())
    assert seen == []


def test_the_same_recipe_gives_the_same_weights() -> None:
    recipe = replace(RECIPES["world"], **FEW)
    one, other = train(recipe).state_dict(), train(recipe).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    different = train(replace(recipe, seed=1)).state_dict()
    assert not torch.equal(one["text_projection"], different["text_projection"])


def test_twins_differ_in_their_losses_alone() -> None:
    world, plain = RECIPES["world"], RECIPES["world-plain"]
    losses = {"reconstruction", "words", "noise", "max_logit_scale"}
    assert {k for k in vars(world) if vars(world)[k] != vars(plain)[k]} == losses
    slip = RECIPES["world-slip"]
    assert {k for k in vars(slip) if vars(slip)[k] != vars(plain)[k]} == {"views"}


def test_the_image_tower_rests_while_it_is_locked() -> None:
    recipe = replace(RECIPES["world-split"], steps=1, batch=8, locked_steps=0)
    short, longer = train(recipe), train(replace(recipe, locked_steps=2))
    assert torch.equal(short.visual.conv1.weight, longer.visual.conv1.weight)
    assert not torch.equal(short.text_projection, longer.text_projection)
    assert all(p.requires_grad for p in longer.parameters())


def test_shipped_merges_are_the_ones_the_script_makes(tmp_path: Path) -> None:
    save_merges(tmp_path / "merges.txt.gz")
    assert (tmp_path / "merges.txt.gz").read_bytes() == MERGES.read_bytes()
    assert gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1:] == pruned_merges(lexicon())


def test_a_bag_contains_the_words_of_its_caption() -> None:
    scenes = draw_scenes(20).replaced(**dict.fromkeys(SAID, 0))
    tokenizer = world_tokenizer()
    bag_of = Bags(tokenizer)
    bag = bag_of(captions(scenes))
    assert bag.shape == (20, bag_of.n_words)
    for row, text in zip(bag, captions(scenes), strict=True):
        assert row.sum() == len(set(tokenizer.encode(text)))


def unit(rows: int, d: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, d, generator=torch.Generator().manual_seed(0)), dim=1)


def test_retrieval_and_gap_of_known_embeddings() -> None:
    same = unit(50, 32)
    scenes = draw_scenes(50)
    assert retrieval(Embedded(scenes, same, same)) == (1.0, 1.0)
    assert gap(Embedded(scenes, same, same)) == 0
    assert gap(Embedded(scenes, same, same + 2)) == pytest.approx(2 * 32**0.5, rel=1e-5)
    assert retrieval(Embedded(scenes, same, same.roll(1, 0)))[0] == 0


def test_probe_and_share_of_planted_factors() -> None:
    scenes = draw_scenes(2000)
    planted = torch.zeros(2000, 12) + 0.01 * unit(2000, 12)
    planted[torch.arange(2000), torch.from_numpy(scenes["shape"])] = 1.0
    found = probe_accuracy(planted, {name: scenes[name] for name in ("shape", "colour")}, train=1500)
    assert found["shape"] == 1
    assert found["colour"] < 0.25
    shares = variance_shares(planted, scenes)
    assert shares["shape"] > 0.99
    assert max(share for name, share in shares.items() if name != "shape") < 0.05


def test_the_schedule_warms_up_and_ends_low() -> None:
    recipe = Recipe(reconstruction=0.0, words=0.0, noise=0.0, max_logit_scale=100.0)
    rates = np.array([schedule(step, recipe) for step in range(recipe.steps)])
    assert rates.argmax() == pytest.approx(recipe.warm_up, abs=2)
    assert rates[0] < 0.05
    assert rates[-1] < 0.001
