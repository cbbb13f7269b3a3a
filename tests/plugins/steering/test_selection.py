"""Choosing latents by name, by class and by what they say about a label, and directions to compare with."""

import numpy as np
import pytest
import torch

from cliplens.errors import UnknownNameError
from cliplens.records import LatentTable, SparseCodes
from cliplens_plugins import steering as s

TABLE = LatentTable(
    {
        "name": np.array(["red", "Red", None, "ring"], dtype=object),
        "name_image": np.array(["blob", None, "dotted", None], dtype=object),
        "name_score": np.array([0.7, 0.9, np.nan, 0.8]),
        "modality": np.array(["CrossD", "ImgD", "TextD", None], dtype=object),
    }
)


def test_latents_by_name_and_by_class() -> None:
    assert s.by_name(TABLE, "red") == [1, 0], "the better scored one first"
    assert s.by_name(TABLE, "dotted") == [2], "a name from images alone will do"
    with pytest.raises(UnknownNameError, match="'ring'"):
        s.by_name(TABLE, "rign")
    assert s.by_class(TABLE, "ImgD") == [1]
    assert s.by_class(TABLE, "all") == [0, 1, 2], "dead latents have no class"
    drawn = s.by_class(TABLE, "random", count=2, seed=3)
    assert len(drawn) == 2
    assert drawn == s.by_class(TABLE, "random", count=2, seed=3)
    with pytest.raises(UnknownNameError):
        s.by_class(TABLE, "ImageD")


def test_label_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    dense = torch.tensor(rng.random((200, 5)) * (rng.random((200, 5)) < 0.3))
    dense[:, 4] = 0
    label = rng.random(200) < 0.4
    found = s.label_correlation(SparseCodes.from_dense(dense), label)
    for k in range(4):
        assert found[k] == pytest.approx(np.corrcoef(dense[:, k].numpy(), label)[0, 1], abs=1e-12)
    assert np.isnan(found[4])


def test_best_latents_and_typical_levels_of_planted_latents() -> None:
    values = np.arange(90) % 3
    dense = torch.zeros(90, 6)
    for value, latent in ((0, 4), (1, 2)):
        dense[torch.from_numpy(values == value), latent] = 2.0 + value
    sparse = SparseCodes.from_dense(dense)
    assert s.best_latents(sparse, values, 3, least=0.6) == [4, 2, None]
    level = s.typical_level(sparse)
    assert level[4] == 2.0
    assert level[2] == 3.0
    assert np.isnan(level[0])


def test_directions() -> None:
    acts = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    target = torch.tensor([True, True, False])
    assert s.difference_of_means(acts, target).tolist() == [2.0, -2.0]
    drawn = s.random_direction(acts, seed=1)
    torch.testing.assert_close(drawn.norm(dim=-1), acts.norm(dim=-1))
    assert not torch.equal(drawn, s.random_direction(acts, seed=2))
    unit = drawn / drawn.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit[0], unit[1])


def test_mean_codes_move_the_latents_whose_means_differ_most() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, 600)
    dense = torch.from_numpy(rng.random((600, 7)) * 0.1)
    for latent, (value, size) in enumerate([(0, 2.0), (1, 1.0), (2, 3.0), (1, 0.5)]):
        dense[torch.from_numpy(values == value), latent] += size
    found = s.MeanCodes(SparseCodes.from_dense(dense), values, 3)
    assert list(found.latents) == [0, 1, 2, 3]
    edits = found.edits(0, 1, most=2)
    assert [e.latents for e in edits] == [(0,), (1,)]
    gap = dense[torch.from_numpy(values == 1)].mean(0) - dense[torch.from_numpy(values == 0)].mean(0)
    np.testing.assert_allclose([e.strength for e in edits], gap[:2], atol=1e-12)
    assert [e.latents for e in found.edits(0, 1, most=None)] == [(0,), (1,), (3,), (2,)]
