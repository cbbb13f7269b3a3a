import numpy as np
import pytest

from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, SIDE, TEXT_ONLY, draw_scenes, object_masks, render
from cliplens.world.factors import SAID
from cliplens.world.shapes import CELL, sprites

QUADRANTS = {0: (0, 0), 1: (0, 1), 2: (1, 1), 3: (1, 0)}


def test_many_pictures_equal_those_drawn_one_by_one() -> None:
    scenes = draw_scenes(150)
    one_by_one = np.concatenate([render(scenes.rows(slice(i, i + 1))) for i in range(len(scenes))])
    assert np.array_equal(render(scenes), one_by_one)


@pytest.mark.parametrize("name", [*TEXT_ONLY, *SAID])
def test_text_factors_do_not_change_pictures(name: str) -> None:
    scenes = draw_scenes(50)
    assert np.array_equal(render(scenes), render(scenes.replaced(**{name: 0})))


@pytest.mark.parametrize("name", [*SHARED, *IMAGE_ONLY])
def test_every_value_of_an_image_factor_changes_the_picture(name: str) -> None:
    scenes = draw_scenes(20)
    pictures = [render(scenes.replaced(**{name: v})).astype(int) for v in range(len(FACTORS[name].values))]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.abs(one - other).mean(axis=(1, 2, 3)).min() > 0.5


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_copies_go_clockwise_from_the_first(count: int, position: int) -> None:
    masks = object_masks(draw_scenes(5).replaced(count=count, position=position))
    cells = masks.reshape(5, 2, CELL, 2, CELL).sum(axis=(2, 4)) > 0
    expected = np.zeros((2, 2), dtype=bool)
    for copy in range(count + 1):
        expected[QUADRANTS[(position + copy) % 4]] = True
    assert (cells == expected).all()


def test_copies_are_alike() -> None:
    masks = object_masks(draw_scenes(20).replaced(count=1, position=0))
    assert np.array_equal(masks[:, :CELL, :CELL], masks[:, :CELL, CELL:])


def test_colour_is_what_the_mask_covers() -> None:
    scenes = draw_scenes(20).replaced(grain=0, fill=0, shape=1)
    changed = (render(scenes.replaced(colour=6)) != render(scenes.replaced(colour=7))).any(axis=-1)
    assert np.array_equal(changed, object_masks(scenes) > 0.5 / 255)


def test_hollow_covers_less_than_solid_and_large_more_than_small() -> None:
    area = sprites().sum(axis=(-1, -2))
    assert (area[:, :, 1] < 0.9 * area[:, :, 0]).all()
    assert (np.diff(area, axis=1) > 0).all()


def test_sprites_stay_inside_their_cell() -> None:
    bank = sprites()
    assert bank.min() == 0
    assert bank.max() == 1
    assert bank[:, :2, ..., 0, :].max() == 0
    assert bank[:, :2, ..., -1].max() == 0


def test_the_pictures_are_the_ones_the_models_were_trained_on() -> None:
    """Means of the first pictures of seed 0: a change here calls for new weights and a new `RENDERING`."""
    pictures = render(draw_scenes(4))
    assert pictures.shape == (4, SIDE, SIDE, 3)
    means = pictures.reshape(4, -1).mean(axis=1)
    assert means == pytest.approx(GOLDEN_MEANS, abs=0.02)


GOLDEN_MEANS = [159.192, 157.664, 156.670, 161.073]
