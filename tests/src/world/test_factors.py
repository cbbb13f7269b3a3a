import numpy as np
import pytest

from cliplens.errors import InputError, UnknownNameError
from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, TEXT_ONLY, draw_scenes
from cliplens.world.factors import SYNONYM_PROBABILITY


def test_every_factor_is_uniform() -> None:
    scenes = draw_scenes(20_000)
    for name, factor in FACTORS.items():
        shares = np.bincount(scenes[name], minlength=len(factor.values)) / len(scenes)
        assert len(shares) == len(factor.values)
        assert np.allclose(shares, 1 / len(factor.values), atol=0.015), name


def test_every_two_columns_are_independent() -> None:
    scenes = draw_scenes(20_000)
    columns = np.stack([column - column.mean() for column in scenes.values.values()])
    correlations = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
    assert np.abs(correlations).max() < 0.035


def test_synonyms_are_as_frequent_as_said() -> None:
    assert draw_scenes(20_000)["said_shape"].mean() == pytest.approx(SYNONYM_PROBABILITY, abs=0.01)


def test_a_scene_does_not_depend_on_how_many_are_drawn() -> None:
    many, part = draw_scenes(100, seed=3), draw_scenes(20, seed=3, start=40)
    for name in many.values:
        assert np.array_equal(many[name][40:60], part[name])


def test_seeds_give_different_scenes() -> None:
    one, other = draw_scenes(1000, seed=0), draw_scenes(1000, seed=1)
    assert (one["shape"] == other["shape"]).mean() == pytest.approx(1 / 8, abs=0.05)


def test_every_factor_has_one_sharing() -> None:
    assert sorted((*SHARED, *IMAGE_ONLY, *TEXT_ONLY)) == sorted(FACTORS)


def test_replaced_changes_one_column_only() -> None:
    scenes = draw_scenes(10)
    changed = scenes.replaced(colour=3, tilt=scenes["tilt"][::-1])
    assert (changed["colour"] == 3).all()
    assert np.array_equal(changed["tilt"], scenes["tilt"][::-1])
    assert all(np.array_equal(changed[n], scenes[n]) for n in scenes.values if n not in ("colour", "tilt"))


def test_an_unknown_factor_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'colour'"):
        draw_scenes(2).replaced(color=1)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"Expected a number of scenes.*found n=-1.*Fix: count from 0"):
        draw_scenes(-1)
