"""A class is called different from random sets if it moves more, and in 5 % of cases at most if it is one of them."""

from collections.abc import Iterator

import numpy as np
import pytest

from cliplens.studies import matched_sets
from cliplens_plugins.robustness.options import CONTROLS, FEWEST_CONTROLS
from cliplens_plugins.robustness.shares import Interval, Ratios

LATENTS, SIZE, PICTURES = 120, 8, 12


def energies_of(rng: np.random.Generator, *, noise: float, more: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Energies [picture, latent] of a change and of clean pictures, with few latents that carry much, as in codes."""
    clean = rng.lognormal(0, 1.5, LATENTS) * np.exp(noise * rng.normal(size=(PICTURES, LATENTS)))
    moved = clean * rng.lognormal(0, 0.8, LATENTS) * np.exp(noise * rng.normal(size=(PICTURES, LATENTS)))
    return moved * (1 if more is None else more), clean


def summed(energy: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return np.concatenate([energy @ masks.T, energy.sum(1, keepdims=True)], 1)


def beyond(
    moved: np.ndarray, clean: np.ndarray, own: np.ndarray, sets: np.ndarray, seed: int = 0, samples: int = 50
) -> Interval:
    masks = np.concatenate([own[None], sets]).astype(float)
    found = Ratios.of(summed(moved, masks), summed(clean, masks), draws=samples, seed=seed)
    return found.beyond(0, range(1, len(masks)))


def outcomes(cases: int, draws: int, noise: float, factor: float = 1.0) -> Iterator[Interval]:
    """Intervals for a class of random latents; its change is multiplied by a factor."""
    for case in range(cases):
        rng = np.random.default_rng(case)
        own = np.isin(np.arange(LATENTS), rng.choice(LATENTS, SIZE, replace=False))
        moved, clean = energies_of(rng, noise=noise, more=np.where(own, factor, 1.0))
        sets = matched_sets(own, rng.permutation(LATENTS) + 1.0, draws, seed=case + 10_000, bins=1)
        yield beyond(moved, clean, own, sets, case, samples=50 if noise else 2)


@pytest.mark.parametrize(("draws", "cases"), [(FEWEST_CONTROLS, 1500), (41, 1000), (CONTROLS, 400)])
def test_a_random_set_is_called_different_in_five_of_a_hundred_cases_at_most(draws: int, cases: int) -> None:
    """Without differences between pictures the level is exact, so one rank too many of the draws would show."""
    called = sum(low > 0 or high < 0 for _, low, high in outcomes(cases, draws, noise=0.0))
    assert called <= 0.05 * cases + 2 * np.sqrt(0.05 * 0.95 * cases)
    assert called > 0.01 * cases, "a rule that never calls anything different is none"


def test_with_pictures_that_differ_it_is_called_different_in_fewer() -> None:
    called = sum(low > 0 or high < 0 for _, low, high in outcomes(300, FEWEST_CONTROLS, noise=1.0))
    assert called <= 0.05 * 300


def test_a_planted_class_that_moves_more_or_less_is_found() -> None:
    more = [low > 0 for _, low, _ in outcomes(60, CONTROLS, noise=0.3, factor=12.0)]
    less = [high < 0 for _, _, high in outcomes(60, CONTROLS, noise=0.3, factor=1 / 12)]
    assert np.mean(more) > 0.9
    assert np.mean(less) > 0.9


def test_a_class_beyond_most_draws_and_short_of_a_few_is_not_called_different() -> None:
    """One draw, or the mean of all, would call it different."""
    moved = np.ones((8, 42))
    moved[:, 0], moved[:, 1:3] = 2.0, 3.0
    found = Ratios(moved[0], moved)
    value, low, high = found.beyond(0, range(1, 42))
    assert (value, low, high) == (1.0, -1.0, 1.0)
    assert found.beyond(0, range(3, 42))[1] == 1.0


def test_a_class_that_stands_out_on_one_picture_alone_is_not_called_different() -> None:
    clean = np.ones((8, LATENTS))
    moved = clean.copy()
    own = np.arange(LATENTS) < SIZE
    moved[0, own], moved[1:, own] = 60.0, 0.5
    value, low, high = beyond(moved, clean, own, matched_sets(~own, np.ones(LATENTS), 199, bins=1))
    assert value > 1
    assert low < 0 < high


def test_sets_without_energy_do_not_count_and_too_few_sets_say_nothing() -> None:
    rng = np.random.default_rng(0)
    moved, clean = energies_of(rng, noise=0.1)
    own = np.arange(LATENTS) < SIZE
    sets = matched_sets(own, np.ones(LATENTS), FEWEST_CONTROLS, bins=1)
    assert not np.isnan(beyond(moved, clean, own, sets)).any()
    assert np.isnan(beyond(moved, clean, own, sets[1:])).all()
    silent = np.concatenate([sets[1:], np.zeros_like(sets[:1])])
    assert np.isnan(beyond(moved, clean, own, silent)).all()
    clean[:, own] = 0.0
    assert np.isnan(beyond(moved, clean, own, sets)).all()


def test_a_class_that_is_every_draw_is_no_different() -> None:
    moved, clean = energies_of(np.random.default_rng(0), noise=1.0)
    own = np.ones(LATENTS, dtype=bool)
    assert beyond(moved, clean, own, np.tile(own, (CONTROLS, 1))) == (0.0, 0.0, 0.0)


def test_the_bootstrap_agrees_with_a_slow_version() -> None:
    moved, clean = energies_of(np.random.default_rng(0), noise=1.0)
    rows = np.random.default_rng(3).integers(0, PICTURES, (5, PICTURES))
    slow = [moved[r].sum(0) / moved[r].sum() / (clean[r].sum(0) / clean[r].sum()) for r in rows]
    whole = [np.concatenate([of, of.sum(1, keepdims=True)], 1) for of in (moved, clean)]
    assert np.allclose(Ratios.of(*whole, draws=5, seed=3).drawn, slow)


def test_the_median_of_the_sets_stands_with_the_range_of_most() -> None:
    found = Ratios(np.array([9.0, *range(101), np.nan]), np.ones((1, 103)))
    assert found.typical(range(1, 103)) == pytest.approx((50.0, 2.5, 97.5))
    assert np.isnan(found.typical([102])).all()
