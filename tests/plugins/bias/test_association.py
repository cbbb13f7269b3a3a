"""The rate of a bias and the modality it lies in are recovered from pairs."""

import numpy as np
import pytest
import torch

import cliplens
from cliplens.errors import InputError
from cliplens_plugins.bias import pair_bias, tied_rate
from cliplens_plugins.bias.association import prototypes
from cliplens_plugins.bias.planted import Where, planted_pairs, sentences_of, tied_scenes


def drawn(n: int, rate: float, values: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, values, n)
    match = rng.permutation(values)
    return target, np.where(rng.random(n) < rate, match[target], rng.integers(0, values, n))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("values", [2, 8])
def test_the_rate_is_recovered_without_bias(rate: float, values: int) -> None:
    found = [tied_rate(*drawn(200 * values, rate, values, seed), draws=2).rate for seed in range(20)]
    assert np.mean(found) == pytest.approx(rate, abs=0.035)


def test_intervals_cover_and_chance_is_rarely_called_tied() -> None:
    covered = [(r := tied_rate(*drawn(300, 0.3, 4, s), draws=200)).low <= 0.3 <= r.high for s in range(60)]
    assert np.mean(covered) > 0.85
    false = [tied_rate(*drawn(300, 0.0, 4, s), draws=200).tied for s in range(60)]
    assert np.mean(false) < 0.12


def test_too_few_items_are_refused() -> None:
    with pytest.raises(InputError, match="Fix: pass at least four items"):
        tied_rate(np.zeros(3, dtype=int), np.zeros(3, dtype=int))


@pytest.fixture(scope="module")
def world() -> tuple[cliplens.HookedCLIP, list[torch.Tensor]]:
    clip = cliplens.load("world", device="cpu")
    return clip, [prototypes(sentences_of(clip, factor)) for factor in ("shape", "colour")]


@pytest.mark.parametrize(("where", "rate"), [("images", 0.6), ("captions", 0.3), ("both", 0.9), ("neither", 0.7)])
def test_planted_rate_and_modality_are_recovered_on_the_world(
    world: tuple[cliplens.HookedCLIP, list[torch.Tensor]], where: Where, rate: float
) -> None:
    clip, banks = world
    found = pair_bias(*planted_pairs(clip, 300, rate, where, seed=3), *banks)
    assert found.where == where
    for modality, of in (("images", found.image), ("captions", found.text)):
        truth = rate if where in (modality, "both") else 0.0
        assert of.rate == pytest.approx(truth, abs=0.1)
        assert of.low - 0.03 <= truth <= of.high + 0.03


def test_scenes_are_tied_at_the_rate_asked_for() -> None:
    for rate in (0.0, 0.5, 1.0):
        scenes = tied_scenes(4000, rate)
        agreed = float((scenes["shape"] == scenes["colour"]).mean())
        assert agreed == pytest.approx(rate + (1 - rate) / 8, abs=0.03)
