"""Activations within exemplars, packed for the page."""

import numpy as np

from cliplens.pictures import fit_of
from cliplens.records import Exemplars, Pair, PositionActivations
from cliplens_plugins.report.heat import LEVELS, packed_heat


def exemplars() -> Exemplars:
    """Two latents with two samples each."""
    pairs = tuple(Pair(f"p{n}", None, f"caption {n}") for n in range(4))
    return Exemplars("image", pairs, np.array([[0, 1], [2, 3]]), np.ones((2, 2)))


def test_levels_are_shares_of_the_latents_largest_activation_not_of_the_samples() -> None:
    heat = {
        ("image", 0, 0): PositionActivations(np.array([0.0, 2.0, 4.0, 1.0]), (2, 2)),
        ("image", 0, 1): PositionActivations(np.array([0.0, 1.0, 2.0, -1.0]), (2, 2)),
        ("image", 1, 1): PositionActivations(np.zeros(4), (2, 2)),
    }
    found = packed_heat(heat, {"image": exemplars()}, {f"p{n}": n for n in range(4)}, 2)["image"]
    assert found["largest"] == [4.0, 0.0]
    assert found["grid"] == (2, 2)
    steps = [[LEVELS.index(c) for c in level] for level in found["levels"][0]]
    assert steps == [[0, 32, 63, 16], [0, 16, 32, 0]]
    assert found["levels"][1] == [None, ""]


def test_the_fit_of_pictures_is_read_off_the_preprocess() -> None:
    assert [fit_of(t) for t in ('{"resize_mode": "shortest"}', '{"resize_mode": "longest"}', "{}")] == [
        "crop",
        "pad",
        "squash",
    ]
    assert [fit_of(t) for t in ("Resize(48) CenterCrop(48)", "Resize(48)")] == ["crop", "squash"]
