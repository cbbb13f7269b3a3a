"""The order in which a provider draws rows, and that its options reach it: both are part of resumed runs."""

from typing import Any

import numpy as np
import pytest
import torch

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.keys import held_out
from cliplens.records import PairedActs
from cliplens.sites import Site, sites_of
from cliplens.store import Cache, Provider, harvest, provider_of
from cliplens.store.memory import reused_memory, trim_memory
from cliplens.store.schedule import check_trainer
from cliplens.store.sources import CachedRows, MemoryRows, by_modality
from support.pictures import noise_pairs

EMBEDDING = sites_of("hook_embedding")


def numbered(n: int) -> PairedActs:
    """Row i of images holds i, row i of captions holds -i - 1."""
    rows = torch.arange(n, dtype=torch.float32)[:, None]
    return PairedActs(tuple(f"p{i}" for i in range(n)), rows, -rows - 1)


def drawn(give: Provider, batches: int) -> list[int]:
    return [int(x) for _ in range(batches) for x in next(give)[:, 0]]


@pytest.fixture(scope="module")
def cache(clip: HookedCLIP, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("caches") / "cache"
    return harvest(clip, noise_pairs(90), EMBEDDING, folder, dtype="float32", forward_batch=16, shard_pairs=32)


def test_rows_in_memory_come_in_blocks_of_1024() -> None:
    source = MemoryRows(numbered(2500))
    assert source.sizes.tolist() == [2048, 2048, 904]
    assert source.modalities == ("image", "text")
    (chunk,) = source.read(np.array([2]))
    assert chunk["image"][:, 0].tolist() == list(range(2048, 2500))
    assert [len(c["text"]) for c in source.read(np.array([1, 0]))] == [1024, 1024]
    alone = MemoryRows(PairedActs(("a",), torch.ones(1, 3), None))
    assert (alone.sizes.tolist(), alone.d_in, alone.modalities) == ([1], 3, ("image",))


def test_the_draws_of_a_seed_never_change() -> None:
    """A run that is resumed by a later version must see the rows it would have seen."""
    one = Provider.from_acts(numbered(6), centre=False, batch_size=4, seed=7)
    assert drawn(one, 6) == [3, -1, -4, 4, -5, -3, -2, 1, 2, 0, -6, 5, 3, 5, -4, 2, -2, -6, -3, 1, -1, 0, 4, -5]
    pairs = Provider.from_acts(numbered(6), centre=False, batch_size=4, seed=2**32 + 7, paired=True)
    assert drawn(pairs, 6) == [3, 2, -4, -3, 0, 4, -1, -5, 1, 5, -2, -6, 3, 2, -4, -3, 5, 0, -6, -1, 1, 4, -2, -5]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("paired", [False, True])
def test_a_reseeded_provider_draws_as_one_made_with_that_seed(started: bool, paired: bool) -> None:
    first = Provider.from_acts(numbered(40), batch_size=8, seed=1, paired=paired)
    if started:
        next(first)
    fresh = Provider.from_acts(numbered(40), batch_size=8, seed=5, paired=paired)
    assert drawn(first.reseeded(5), 25) == drawn(fresh, 25)
    undisturbed = Provider.from_acts(numbered(40), batch_size=8, seed=1, paired=paired)
    assert drawn(first, 25 - started) == drawn(undisturbed, 25)[8 * started :]


def test_windows_of_a_seed_never_change() -> None:
    windows = Provider(MemoryRows(numbered(5000)), batch_size=1000, buffer_rows=2500, seed=3)
    seen = [drawn(windows, 1)[:3] for _ in range(20)]
    assert seen == [
        [1011, -74, 68],
        [-457, -661, -754],
        [-830, 991, -554],
        [-2718, 2599, -2303],
        [-2925, -2162, 2311],
        [3229, 3589, -3512],
        [4093, 3248, 3362],
        [-4515, 1679, -4546],
        [4951, 4808, 4747],
        [-4288, 1999, 1160],
        [1031, -1983, 1060],
        [1812, 1190, -1715],
        [1080, -1816, -1330],
        [927, -203, 260],
        [-946, -867, -184],
        [-4727, 4930, -4761],
        [-2847, -3209, 3223],
        [3564, 3516, 2622],
        [-3840, 2681, 2726],
        [-2579, -2729, 2702],
    ]


def test_every_window_is_filled_once_and_the_next_one_ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[tuple[int, int]] = []
    stock = Provider._fill

    def counted(self: Provider, units: Any, due: tuple[int, int], rows: Any) -> Any:
        filled.append(due)
        return stock(self, units, due, rows)

    monkeypatch.setattr(Provider, "_fill", counted)
    give = Provider(MemoryRows(numbered(5000)), batch_size=1000, buffer_rows=4096, seed=3)
    drawn(give, 30)
    windows = max(w for _, w in filled) + 1
    assert windows > 1
    assert len(set(filled)) == len(filled)
    assert filled == sorted(filled)
    assert filled[-1] >= (give.epoch, 0)
    alone = Provider(MemoryRows(numbered(5000)), batch_size=1000, buffer_rows=4096, seed=3, prefetch=False)
    assert drawn(alone, 30) == drawn(
        Provider(MemoryRows(numbered(5000)), batch_size=1000, buffer_rows=4096, seed=3), 30
    )


def test_a_provider_whose_rows_fit_needs_no_thread_and_fills_once(monkeypatch: pytest.MonkeyPatch) -> None:
    give = Provider(MemoryRows(numbered(50)), batch_size=20, buffer_rows=100)
    assert give._pool is None
    assert give.state_dict()["buffer_rows"] == 100
    assert Provider(MemoryRows(numbered(50)), batch_size=20, buffer_rows=1000).state_dict()["buffer_rows"] == 100
    assert Provider(MemoryRows(numbered(5000)), batch_size=20, buffer_rows=64)._pool is not None
    monkeypatch.setattr("cliplens.store.provider.BUFFER_BYTES", 4 * 30)
    assert Provider(MemoryRows(numbered(50)), batch_size=20).state_dict()["buffer_rows"] == 30
    assert Provider(MemoryRows(numbered(50)), batch_size=40).state_dict()["buffer_rows"] == 40


@pytest.mark.parametrize("paired", [True, False])
def test_every_option_of_a_cache_reaches_its_provider(cache: Cache, paired: bool) -> None:
    keep = lambda keys: ~held_out(keys, 0.4)  # noqa: E731
    rows = next(cache.batches(*EMBEDDING, keep=keep))
    asked = {"batch_size": 8, "seed": 11, "paired": paired}
    give = Provider.from_cache(
        cache, image=EMBEDDING[0], text=EMBEDDING[1], keep=keep, centre=False, buffer_rows=20, device="cpu", **asked
    )
    assert give.means is None
    assert give.provenance is not None
    assert not give.provenance.centred
    state = give.state_dict()
    assert {name: state[name] for name in asked} == asked
    assert (state["buffer_rows"], state["rows"], state["d_in"]) == (20, 2 * len(rows), rows.image.shape[1])
    own = torch.cat([rows.image, rows.text])
    assert all((own == row).all(1).any() for row in next(give))
    small = CachedRows(cache, by_modality(EMBEDDING), keep, 256)
    assert small.sizes.max() <= 4
    assert small.sizes.sum() == 2 * len(rows)
    defaults = Provider.from_cache(cache, image=EMBEDDING[0]).state_dict()
    assert (defaults["batch_size"], defaults["seed"], defaults["paired"]) == (4096, 0, False)


def test_every_option_of_rows_in_memory_reaches_its_provider() -> None:
    give = Provider.from_acts(numbered(10), batch_size=6, seed=4, paired=True)
    assert {n: give.state_dict()[n] for n in ("batch_size", "seed", "paired", "buffer_rows", "rows")} == {
        "batch_size": 6,
        "seed": 4,
        "paired": True,
        "buffer_rows": 20,
        "rows": 20,
    }
    assert give.means is not None
    assert (give.means["image"].tolist(), give.means["text"].tolist()) == ([4.5], [-5.5])
    assert next(give).sum().abs() < 20
    defaults = Provider.from_acts(numbered(10)).state_dict()
    assert (defaults["batch_size"], defaults["seed"], defaults["paired"]) == (4096, 0, False)


@pytest.mark.parametrize("buffer_rows", [None, 20])
def test_every_option_of_a_model_reaches_its_provider(clip: HookedCLIP, buffer_rows: int | None) -> None:
    asked = {"batch_size": 8, "seed": 11, "paired": True}
    how: dict[str, Any] = {"forward_batch": 5, "buffer_rows": buffer_rows, "centre": False}
    give = provider_of(clip, noise_pairs(30), EMBEDDING, **asked, **how)
    assert give.means is None
    assert give.provenance is not None
    assert (give.provenance.centred, give.provenance.token, give.provenance.sites) == (
        False,
        "auto",
        ("vision.hook_embedding", "text.hook_embedding"),
    )
    state = give.state_dict()
    assert {name: state[name] for name in asked} == asked
    assert (state["rows"], state["buffer_rows"]) == (60, buffer_rows or 60)
    centred = provider_of(clip, noise_pairs(30), EMBEDDING, buffer_rows=buffer_rows, batch_size=60)
    assert centred.means is not None
    assert next(centred).view(60, -1).mean(0).abs().max() < 0.5
    assert centred.provenance is not None
    assert centred.provenance.centred


def test_a_model_reads_its_pairs_once_where_they_fit_and_in_every_epoch_where_not(clip: HookedCLIP) -> None:
    small, large = (provider_of(clip, noise_pairs(12), EMBEDDING, batch_size=4, buffer_rows=n) for n in (24, 23))
    assert type(small._source).__name__ == "MemoryRows"
    assert type(large._source).__name__ == "LiveRows"
    assert large._pool is None
    patches = provider_of(clip, noise_pairs(3), sites_of("blocks.1.hook_resid_post", "image"), token="patches")
    assert type(patches._source).__name__ == "MemoryRows"


def test_a_batch_size_below_one_and_pairs_without_a_row_are_refused(clip: HookedCLIP) -> None:
    with pytest.raises(InputError, match="a batch size of 1 or more, but found 0"):
        Provider.from_acts(numbered(4), batch_size=0)
    with pytest.raises(InputError, match=r"at most one site per tower, but found .*hook_embedding and .*resid"):
        by_modality([EMBEDDING[0], Site("vision", "blocks.0.hook_resid_post")])
    with pytest.raises(InputError, match="a site to read"):
        by_modality([])


def test_memory_is_tuned_for_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Any, ...]] = []
    monkeypatch.setattr("cliplens.store.memory._of_glibc", lambda name: lambda *a: said.append((name, *a)))
    with reused_memory():
        assert said == [("mallopt", -3, 2**31 - 1), ("mallopt", -1, 2**31 - 1)]
    assert said[2:] == [("mallopt", -3, 2**25), ("mallopt", -1, 2**26), ("malloc_trim", 0)]
    monkeypatch.setattr("cliplens.store.memory._of_glibc", lambda name: None)
    said.clear()
    with reused_memory():
        trim_memory()
    assert said == []


def test_a_trainer_is_found_among_the_callers_and_not_far_away() -> None:
    class Trainer:
        def __init__(self, told: int | None) -> None:
            self.cfg = type("Config", (), {"train_batch_size_samples": told})()

        def fit(self, deep: int) -> bool:
            return dig(deep)

    def dig(deep: int) -> bool:
        return check_trainer(8) if deep == 0 else dig(deep - 1)

    assert Trainer(8).fit(0)
    assert not Trainer(8).fit(30)
    assert not Trainer(None).fit(0)
    assert not dig(0)


def test_a_provider_says_what_it_reads(cache: Cache) -> None:
    known = Provider.from_cache(cache, image=EMBEDDING[0], batch_size=8)
    assert "of " in repr(known)
    assert str(EMBEDDING[0]) in repr(known)
    plain = Provider.from_acts(numbered(4), centre=False, batch_size=2, paired=True)
    assert ("vision" in repr(plain), "whole pairs" in repr(plain), "raw" in repr(plain)) == (False, True, True)


def test_rows_that_just_fit_are_read_in_their_order_and_drawn_from_all() -> None:
    """Only rows of more than one window are read in a drawn order."""
    whole = Provider.from_acts(numbered(2500), centre=False, batch_size=100)
    assert [window.tolist() for window in whole._windows] == [[0, 1, 2]]
    one_less = Provider(MemoryRows(numbered(2500)), batch_size=100, buffer_rows=4999, seed=0)
    assert len(one_less._windows) == 2
    assert sorted(np.concatenate(one_less._windows).tolist()) == [0, 1, 2]
