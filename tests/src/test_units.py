"""Pictures and caption texts that pairs share, and top samples that list each of them once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.keys import pair_keys
from cliplens.records import Pair, SparseCodes, Units
from cliplens.tally import TopSamples


def test_ids_alone_tell_further_captions_of_a_picture() -> None:
    units = Units.from_ids(["a.png", "a.png#1", "b.png", "a.png#2"])
    assert units.images.tolist() == pair_keys(["a.png", "a.png", "b.png", "a.png"]).tolist()
    assert len(set(units.captions.tolist())) == 4
    assert units.first_image.tolist() == [True, False, True, False]
    assert units.first_caption.all()
    assert units.first_pair.all()


def test_columns_tell_which_pairs_share_a_picture_or_a_text() -> None:
    units = Units.from_columns(["d", "c", "b", "a"], ["x", "y", "x", "x"], ["u", "u", None, "u"])
    # The smallest id of a group stands for it, whatever the order.
    assert units.images.tolist() == pair_keys(["a", "c", "a", "a"]).tolist()
    assert units.captions.tolist() == pair_keys(["a", "a", "b", "a"]).tolist()
    assert units.first_image.tolist() == [True, True, False, False]
    assert units.first_caption.tolist() == [True, False, True, False]
    assert units.first_pair.tolist() == [True, True, True, False]


@given(st.permutations([f"p{i}" for i in range(6)]))
def test_distinct_columns_give_the_keys_of_the_ids(ids: list[str]) -> None:
    units = Units.from_columns(ids, range(6), [f"text {i}" for i in ids])
    plain = Units.from_ids(ids)
    for name in ("images", "captions", "first_image", "first_caption", "first_pair"):
        np.testing.assert_array_equal(getattr(units, name), getattr(plain, name))


@given(st.integers(0, 50), st.sampled_from([1, 3, 7, 40]))
@settings(max_examples=25, deadline=None)
def test_top_samples_list_each_picture_once(seed: int, size: int) -> None:
    g = np.random.default_rng(seed)
    n, d_sae, top = 40, 3, 4
    codes = torch.tensor(g.integers(0, 6, (n, d_sae)).astype(np.float32))  # many ties
    groups = g.integers(0, 12, n)
    ids = [f"{i:02d}" for i in g.permutation(n)]
    keys = pair_keys([f"group {k}" for k in groups])
    parts = []
    for a in range(0, n, size):
        part = TopSamples("image", top)
        part.add(ids[a : a + size], SparseCodes.from_dense(codes[a : a + size]), keys=keys[a : a + size])
        parts.append(part)
    seen = TopSamples("image", top)
    for part in reversed(parts):
        again = TopSamples("image", top)
        again.load_state(part.state())
        seen.merge(again)
    found = seen.exemplars({i: Pair(i, None, None) for i in ids})
    for latent in range(d_sae):
        best: dict[int, tuple[float, str]] = {}
        for row in range(n):
            value = float(codes[row, latent])
            if value > 0:
                best[groups[row]] = min(best.get(groups[row], (0.0, "")), (-value, ids[row]))
        slow = [(i, -v) for v, i in sorted(best.values())[:top]]
        assert [(pair.id, value) for pair, value in found.of(latent)] == slow


@pytest.mark.parametrize("kept", [[True, False, True], [False, False, False], [True, True, True]])
def test_some_rows_of_sparse_codes(kept: list[bool]) -> None:
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    some = SparseCodes.from_dense(dense).take(np.array(kept))
    assert torch.equal(some.dense(), dense[torch.tensor(kept)])
