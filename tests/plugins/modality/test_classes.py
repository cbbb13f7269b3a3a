"""Both rules, their boundaries, and the case that fools the paper's."""

import numpy as np
import pytest
import torch

from cliplens.errors import InputError
from cliplens_plugins.modality import class_counts, classify, classify_fixed


def test_the_papers_rule_by_hand() -> None:
    scores = np.array([0.0, 0.5, 0.5, 0.5, 0.5, 1.0, np.nan])
    assert classify(scores).tolist() == ["TextD", *["CrossD"] * 4, "ImgD", "dead"]


def test_a_fully_split_dictionary_looks_crossed_to_the_papers_rule_and_not_to_the_fixed_cuts() -> None:
    scores = np.repeat([0.0, 1.0], 50)
    assert set(classify(scores).tolist()) == {"CrossD"}
    assert class_counts(classify_fixed(scores)) == {"ImgD": 50, "TextD": 50, "CrossD": 0, "dead": 0}


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("n", [1, 3, 10, 1000])
def test_equal_scores_are_crossed_in_spite_of_rounding(value: float, n: int) -> None:
    assert set(classify(np.full(n, value)).tolist()) == {"CrossD"}


def test_a_split_in_thirds_keeps_its_boundaries_in_spite_of_rounding() -> None:
    scores = np.repeat([0.1, 0.3], 7)
    assert set(classify(scores).tolist()) == {"CrossD"}


def test_tau_widens_the_middle() -> None:
    scores = np.linspace(0, 1, 101)
    counts = [class_counts(classify(scores, tau=tau))["CrossD"] for tau in (0.0, 0.5, 1.0, 1.5)]
    assert counts == sorted(counts)
    assert counts[0] == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fixed_boundaries_belong_to_the_middle_in_every_precision(dtype: type[np.floating]) -> None:
    scores = np.array([0.2, 0.8], dtype=dtype)
    assert classify_fixed(scores).tolist() == ["CrossD", "CrossD"]
    outside = np.array([np.nextafter(scores[0], dtype(0)), np.nextafter(scores[1], dtype(1))])
    assert classify_fixed(outside).tolist() == ["TextD", "ImgD"]


def test_torch_and_lists_are_taken_and_strings_come_back() -> None:
    assert classify_fixed(torch.tensor([0.0, 0.5, 1.0])).tolist() == ["TextD", "CrossD", "ImgD"]
    assert classify([0.5, float("nan")]).tolist() == ["CrossD", "dead"]
    assert classify_fixed([0, 1]).dtype.kind == "U"


def test_nothing_alive() -> None:
    assert classify(np.full(3, np.nan)).tolist() == ["dead"] * 3
    assert classify(np.zeros(0)).shape == (0,)


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"Expected tau of 0 or more, but found -1"):
        classify(np.zeros(2), tau=-1)
    with pytest.raises(InputError, match="Fix: swap the two cuts"):
        classify_fixed(np.zeros(2), low=0.9, high=0.1)
    with pytest.raises(InputError, match="one score per latent"):
        classify(np.zeros((2, 2)))
