"""What a run asks about its pairs: retrieval against the slow version, labels by id, and refusals in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from cliplens.errors import InputError, PairsError, UnknownNameError
from cliplens.pairs import read_labels
from cliplens.records import PairedActs
from cliplens.run.targets import label_of, retrieved
from cliplens.settings import Settings


def some(n: int, seed: int, prefix: str) -> PairedActs:
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 4, generator=g, dtype=torch.float64)
    text = image + 0.8 * torch.randn(n, 4, generator=g, dtype=torch.float64)
    return PairedActs(tuple(f"{prefix}{i}" for i in range(n)), normalize(image, dim=1), normalize(text, dim=1))


def test_retrieved_equals_the_slow_version_and_leaves_the_own_pair_out() -> None:
    pool, rest = some(12, 0, "p"), some(20, 1, "q")
    ids = (*pool.ids, *rest.ids)
    every = PairedActs(ids, torch.cat([pool.image, rest.image]), torch.cat([pool.text, rest.text]))
    slow = []
    for m, pair_id in enumerate(ids):
        own = float(every.image[m] @ every.text[m])
        others = [j for j in range(12) if pool.ids[j] != pair_id]
        ahead = [float(every.image[m] @ pool.text[j]) for j in others]
        ahead += [float(pool.image[j] @ every.text[m]) for j in others]
        slow.append(own > max(ahead))
    found = retrieved(every, pool)
    assert found.tolist() == slow
    assert 0 < found.sum() < len(ids)
    parts = [PairedActs(ids[a : a + 5], every.image[a : a + 5], every.text[a : a + 5]) for a in range(0, 32, 5)]
    assert np.concatenate([retrieved(p, pool) for p in parts]).tolist() == slow


def table(folder: Path) -> Path:
    path = folder / "set.csv"
    path.write_text("image,caption,kind\na.png,one,cat\nb.png,two,dog\nb.png,three,\nc.png,four,cat \n")
    return path


def test_labels_come_by_id_and_further_captions_share_them(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path), "kind")
    assert labels.values == ["cat", "dog"]
    assert [labels[i] for i in ("a.png", "b.png", "c.png", "a.png#1", "nowhere")] == ["cat", "dog", "cat", "cat", None]
    of = label_of(Settings(pairs=str(tmp_path / "set.csv"), target="kind=cat"))
    assert of(["c.png", "b.png", "b.png#1", "a.png"]).tolist() == [True, False, False, True]


def test_the_worlds_factors_are_labels() -> None:
    of = label_of(Settings(pairs="world:400", target="shape=circle"))
    from cliplens.world import ground_truth

    truth = ground_truth(400, seed=0)
    held = truth.factors["shape"] == truth.values["shape"].index("circle")
    assert of(truth.ids).tolist() == held.tolist()
    assert 0 < held.sum() < 400


def test_refusals(tmp_path: Path) -> None:
    path = str(table(tmp_path))
    with pytest.raises(InputError, match=r"Expected --target COLUMN=VALUE, but found 'kind'\. Fix: pass a column"):
        label_of(Settings(pairs=path, target="kind"))
    with pytest.raises(PairsError, match="a column 'kinds'"):
        label_of(Settings(pairs=path, target="kinds=cat"))
    with pytest.raises(UnknownNameError, match="value of the column 'kind'"):
        label_of(Settings(pairs=path, target="kind=cats"))
    with pytest.raises(UnknownNameError, match="factor of the pairs"):
        label_of(Settings(pairs="world:50", target="shapes=circle"))
    with pytest.raises(UnknownNameError, match="value of shape"):
        label_of(Settings(pairs="world:50", target="shape=circel"))
    with pytest.raises(PairsError, match="Fix: write a CSV"):
        read_labels(tmp_path, "kind")


def test_a_pair_tied_with_another_is_not_retrieved() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    pool = PairedActs(("a", "b"), eye[[0, 1]], eye[[0, 0]])
    assert retrieved(pool, pool).tolist() == [False, False]
    apart = PairedActs(("a", "b"), eye[[0, 1]], eye[[0, 1]])
    assert retrieved(apart, apart).tolist() == [True, True]
