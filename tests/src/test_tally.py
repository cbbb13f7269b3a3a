"""One pass for every metric; sums and top samples that merge in any order."""

import itertools
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings, Pair, SparseCodes
from cliplens.registry import find
from cliplens.run.scoring import _watched
from cliplens.tally import Sums, TopSamples, all_reduce, tally
from cliplens.tally.kept_rows import KeptRows
from support.planted import batch_of, batches_of, planted_codes


class Counting(Metric):
    """How many rows were seen."""

    name = "counting"
    needs = frozenset()

    def __init__(self) -> None:
        self.sums = Sums()

    def update(self, batch: Batch) -> None:
        self.sums.add("rows", len(batch.ids))

    def merge(self, other: Metric) -> None:
        assert isinstance(other, Counting)
        self.sums.merge(other.sums)

    def state(self) -> dict[str, Tensor]:
        return self.sums.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.sums.load_state(state)

    def findings(self, decoder: Any) -> Findings:
        return Findings(figures={"rows": int(self.sums["rows"])})


class FailsLate(Counting):
    """Fails on its second batch."""

    name = "fails_late"

    def update(self, batch: Batch) -> None:
        if "rows" in self.sums:
            raise ZeroDivisionError("the second batch")
        super().update(batch)


class WrongLength(Counting):
    name = "wrong_length"

    def findings(self, decoder: Any) -> Findings:
        return Findings({"short": np.zeros(3)}, (Column("short", "too short"),))


class NeedsJudge(Counting):
    name = "needs_judge"
    needs = frozenset({"judge", "truth"})


def test_a_failing_metric_is_named_and_the_others_go_on() -> None:
    batches = batches_of(planted_codes(600, 4))
    found = tally(batches, [FailsLate(), Counting()], decoder=None)
    assert found.figures == {"rows": 600}
    (failed,) = found.failed
    assert failed["plugin"] == "fails_late"
    assert failed["error"] == "ZeroDivisionError: the second batch"


def test_the_distribution_of_a_failing_plugin_is_named() -> None:
    plugin = find("metrics", "mds")
    found = tally(batches_of(planted_codes(600, 4)), [(plugin, FailsLate())], decoder=None)
    assert found.failed == (
        {"plugin": "mds", "distribution": "cliplens", "error": "ZeroDivisionError: the second batch"},
    )


def test_findings_that_do_not_fit_the_table_are_a_failure_of_their_metric() -> None:
    found = tally(batches_of(planted_codes(300, 4)), [WrongLength(), Counting()], decoder=torch.zeros(12, 5))
    assert [f["plugin"] for f in found.failed] == ["wrong_length"]
    assert found.figures == {"rows": 300}
    assert list(found.table) == ["latent"]


def test_a_metric_whose_needs_are_missing_is_left_out_with_a_note() -> None:
    found = tally(batches_of(planted_codes(300, 4)), [NeedsJudge()], decoder=None)
    assert found.failed == ()
    assert found.notes == (
        "The metric 'needs_judge' was left out: it needs embeddings by a judge and pairs whose ground truth is known.",
    )


class NeedsNothingKnown(NeedsJudge):
    name = "needs_bogus"
    needs = frozenset({"bogus"})


def test_an_unknown_need_is_named_beside_the_known_ones() -> None:
    (note,) = tally(batches_of(planted_codes(300, 4)), [NeedsNothingKnown()], decoder=None).notes
    assert "'bogus', which is no need of metrics (judge, pairs, raw, targets, truth)" in note


def test_rows_are_added_to_those_of_their_latents() -> None:
    sums, expected = Sums(), torch.zeros(5, 2, dtype=torch.float64)
    for latents in ([4, 1], [], [1]):
        rows = torch.randn(len(latents), 2)
        sums.add_rows("x", torch.tensor(latents, dtype=torch.int64), rows, 5)
        expected[latents] += rows.double()
    assert torch.equal(sums["x"], expected)
    held = sums.state()["x"]
    sums.add_rows("x", torch.tensor([0]), torch.ones(1, 2), 5)
    assert not held[0].any()


def test_sums_merge_like_addition() -> None:
    a, b, whole = Sums(), Sums(), Sums()
    for held, part in ((a, [1.5, 2.0]), (b, [4.0])):
        for term in part:
            held.add("x", term)
            whole.add("x", term)
    b.add("n", torch.tensor(3))
    a.merge(b)
    assert a["x"] == whole["x"]
    assert a["n"].dtype == torch.int64
    restored = Sums()
    restored.load_state(a.state())
    assert restored.names() == a.names()


# --- top samples


def _slow_top(codes: Tensor, ids: tuple[str, ...], latent: int, top: int) -> list[tuple[str, float]]:
    firing = [(-float(v), i) for v, i in zip(codes[:, latent], ids, strict=True) if v > 0]
    return [(i, -v) for v, i in sorted(firing)[:top]]


def _kept(samples: TopSamples, latent: int, ids: tuple[str, ...]) -> list[tuple[str, float]]:
    found = samples.exemplars({i: Pair(i, None, i) for i in ids})
    return [(pair.id, value) for pair, value in found.of(latent)]


@pytest.fixture
def tied() -> tuple[tuple[str, ...], Tensor]:
    """Codes of few distinct values, so that ties abound."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 4, (300, 7), generator=generator).double()
    codes[:, 6] = 0
    order = torch.randperm(300, generator=generator).tolist()
    return tuple(f"pair {i}" for i in order), codes


def test_top_samples_are_the_strongest_with_ties_by_id(tied: tuple[tuple[str, ...], Tensor]) -> None:
    ids, codes = tied
    samples = TopSamples("image", top=5)
    for a in range(0, 300, 32):
        samples.update(batch_of(ids[a : a + 32], codes[a : a + 32], None))
    for latent in range(7):
        assert _kept(samples, latent, ids) == _slow_top(codes, ids, latent, 5)


def test_top_samples_do_not_depend_on_the_order_of_batches_or_merges(tied: tuple[tuple[str, ...], Tensor]) -> None:
    ids, codes = tied
    parts = []
    for a in range(0, 300, 100):
        part = TopSamples("image", top=5)
        part.add(ids[a : a + 100], SparseCodes.from_dense(codes[a : a + 100]))
        parts.append(part.state())
    kept = []
    for order in itertools.permutations(range(3)):
        merged = TopSamples("image", top=5)
        for place in order:
            other = TopSamples("image", top=5)
            other.load_state(parts[place])
            merged.merge(other)
        kept.append([_kept(merged, latent, ids) for latent in range(7)])
    assert all(k == kept[0] for k in kept)
    assert kept[0] == [_slow_top(codes, ids, latent, 5) for latent in range(7)]


def test_top_samples_settle_often_without_losing_any(
    tied: tuple[tuple[str, ...], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, codes = tied
    samples = TopSamples("image", top=5)
    for a in range(0, 300, 10):
        samples.add(ids[a : a + 10], SparseCodes.from_dense(codes[a : a + 10]))
        samples._compact()
    assert len(samples._ids) <= 7 * 5
    assert all(_kept(samples, latent, ids) == _slow_top(codes, ids, latent, 5) for latent in range(7))


def test_top_samples_settle_by_themselves_so_that_memory_is_bounded() -> None:
    samples, most = TopSamples("image", top=2), 1 << 16
    codes = SparseCodes.from_dense(torch.rand(500, 40, generator=torch.Generator().manual_seed(0)) + 0.1)
    for n in range(12):
        samples.add(tuple(f"{n}-{i}" for i in range(500)), codes)
        assert sum(len(latents) for latents, _, _ in samples._buffered) <= most
    assert len(samples._ids) < 12 * 500


def test_a_sample_between_the_two_weakest_kept_ones_is_kept() -> None:
    samples = TopSamples("image", top=3)
    for n, value in enumerate([5.0, 4.0, 1.0, 2.0, 3.0, 2.5]):
        samples.add((str(n),), SparseCodes.from_dense(torch.tensor([[value]])))
        samples._compact()
    assert samples._values.tolist() == [5.0, 4.0, 3.0]


def test_the_state_of_unused_top_samples_loads() -> None:
    samples, state = TopSamples("text", top=3), TopSamples("text", top=3).state()
    assert state["ends"].dtype == torch.int64
    samples.load_state(state)
    assert samples.exemplars({}).pairs == ()


def test_codes_of_two_dictionaries_are_refused() -> None:
    samples = TopSamples("image", top=3)
    samples.add(("a",), SparseCodes.from_dense(torch.ones(1, 4)))
    with pytest.raises(
        InputError, match=r"Expected codes of one dictionary \(4 latents\), but found codes over 5. Fix: keep"
    ):
        samples.add(("b",), SparseCodes.from_dense(torch.ones(1, 5)))


def test_all_reduce_does_nothing_alone() -> None:
    metric = Counting()
    metric.sums.add("rows", 3)
    all_reduce([metric])
    assert int(metric.sums["rows"]) == 3


def test_a_pair_with_many_rows_counts_once_by_its_strongest() -> None:
    dense = torch.tensor([[1.0, 0.0], [3.0, 2.0], [2.0, 0.0], [0.0, 5.0], [0.5, 4.0]])
    samples = TopSamples("image", top=5)
    samples.add(("a", "a", "a", "b", "b"), SparseCodes.from_dense(dense))
    at = samples.table()
    assert [[samples.ids[p] for p in row if p >= 0] for row in at] == [["a", "b"], ["b", "a"]]
    values = samples.exemplars({i: Pair(i, None, None) for i in "ab"}).values
    np.testing.assert_array_equal(values[:, :2], [[3.0, 0.5], [5.0, 2.0]])


def test_a_firing_of_float32_codes_takes_twelve_bytes() -> None:
    samples = TopSamples("image", top=2)
    samples.add(("a", "b"), SparseCodes.from_dense(torch.rand(2, 5) + 0.1))
    samples._compact()
    assert sum(held.nbytes for held in (samples._latents, samples._values, samples._sample)) == 12 * 10


@pytest.mark.parametrize("saved", [False, True])
def test_activations_that_float32_cannot_tell_apart_keep_their_order_if_codes_are_float64(saved: bool) -> None:
    samples = TopSamples("image", top=3)
    for name, value in (("a", 1.0), ("b", 1.0 + 2**-40), ("c", 1.0 - 2**-40)):
        samples.add((name,), SparseCodes.from_dense(torch.tensor([[value]], dtype=torch.float64)))
    if saved:
        samples.load_state(samples.state())
    kept = _kept(samples, 0, ("a", "b", "c"))
    assert kept == [("b", 1.0 + 2**-40), ("a", 1.0), ("c", 1.0 - 2**-40)]


def test_a_state_with_wider_numbers_loads_as_it_was_saved_before() -> None:
    samples = TopSamples("image", top=2)
    samples.add(("a", "b", "c"), SparseCodes.from_dense(torch.tensor([[1.0, 0.1], [3.0, 0.0], [2.0, 0.3]])))
    wide = {"latents": torch.int64, "values": torch.float64, "sample": torch.int64}
    before = {name: held.to(wide[name]) if name in wide else held for name, held in samples.state().items()}
    again = TopSamples("image", top=2)
    again.load_state(before)
    assert [_kept(again, k, ("a", "b", "c")) for k in (0, 1)] == [_kept(samples, k, ("a", "b", "c")) for k in (0, 1)]


def test_latents_times_samples_may_exceed_32_bits() -> None:
    """With 32-bit numbers, latent 1 and latent 65,537 of one of 65,536 pictures would be the same entry."""
    rows = torch.arange(65_537)
    codes = SparseCodes(
        torch.cat([rows, torch.tensor([5])]),
        torch.cat([torch.ones_like(rows), torch.tensor([65_537])]),
        torch.cat([1.0 + rows.float(), torch.tensor([1.0])]),
        65_537,
        70_000,
    )
    keys = np.append(np.arange(65_536, dtype=np.uint64), np.uint64(0))
    samples = TopSamples("image", top=2)
    samples.add([f"{n:05}" for n in range(65_537)], codes, keys=keys)
    assert [samples.ids[p] for p in samples.table()[65_537] if p >= 0] == ["00005"]
    assert [samples.ids[p] for p in samples.table()[1]] == ["65536", "65535"]


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_what_is_kept_does_not_depend_on_how_many_latents_are_sorted_at_a_time(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(1)
    codes = (torch.rand(80, 7, generator=draw) * 4).round()  # many ties
    names, keys = [f"{n * 37 % 80:02}" for n in range(80)], (np.arange(80) % 50).astype(np.uint64)

    def kept() -> tuple[tuple[str, ...], list[list[int]]]:
        samples = TopSamples("image", top=6)
        for a in range(0, 80, 8):
            samples.add(names[a : a + 8], SparseCodes.from_dense(codes[a : a + 8]), keys=keys[a : a + 8])
            samples._compact()
        return samples.ids, samples.table().tolist()

    expected = kept()
    monkeypatch.setattr("cliplens.tally.top_samples._BLOCK", block)
    assert kept() == expected


def test_rows_that_are_kept_are_those_of_one_tensor() -> None:
    draw = np.random.default_rng(0)
    rows, expected = KeptRows(), torch.zeros(0, 3)
    for _ in range(6):
        more = torch.from_numpy(draw.normal(size=(int(draw.integers(0, 9)), 3))).float()
        rows.add(more)
        expected = torch.cat([expected, more])
        kept = torch.from_numpy(np.flatnonzero(draw.random(len(expected)) < 0.7))
        rows.keep(kept)
        expected = expected[kept]
        assert len(rows) == len(expected)
    assert torch.equal(rows.joined(), expected)
    rows.keep(torch.tensor([], dtype=torch.int64))
    assert rows.joined().shape[0] == 0


@pytest.mark.parametrize("before", [None, torch.ones(2, 3, dtype=torch.float16)])
def test_rows_can_be_added_after_nothing_was_joined(before: Tensor | None) -> None:
    rows = KeptRows()
    if before is not None:
        rows.add(before)
        rows.keep(torch.tensor([], dtype=torch.int64))
    nothing = rows.joined()
    assert nothing.shape == (0, 0 if before is None else 3)
    assert nothing.dtype == (torch.float32 if before is None else torch.float16)
    rows.add(torch.eye(3))
    assert torch.equal(rows.joined(), torch.eye(3))


@pytest.mark.parametrize("wide_first", [True, False])
def test_the_wider_dtype_is_kept_whichever_comes_first(wide_first: bool) -> None:
    counts, halves = torch.tensor([[1, 5]], dtype=torch.int32), torch.tensor([[0.5, 0.25]])
    latent, order = torch.tensor([2]), (1, -1)[not wide_first]
    added, parts = Sums(), []
    for rows in (halves, counts)[::order]:
        added.add_rows("x", latent, rows, 3)
        parts.append(Sums())
        parts[-1].add_rows("x", latent, rows, 3)
    merged, loaded = Sums(), Sums()
    for part in parts:
        merged.merge(part)
    loaded.load_state(parts[0].state())
    loaded.add_rows("x", latent, (counts if wide_first else halves), 3)
    single = Sums()
    for value in (0.5, 1)[::order]:
        single.add("x", value)
    assert float(single["x"]) == 1.5
    for sums in (added, merged, loaded):
        assert sums["x"].dtype == torch.float64
        assert sums["x"][2].tolist() == [1.5, 5.25]
    assert parts[0]["x"][2].tolist() == ([0.5, 0.25] if wide_first else [1, 5]), "what is merged stays as it was"


def test_rows_of_counts_take_half_the_memory_and_merge_as_counts() -> None:
    one, other = Sums(), Sums()
    for sums in (one, other):
        sums.add_rows("n", torch.tensor([2]), torch.tensor([[1, 5]], dtype=torch.int32), 3)
        sums.add_rows("x", torch.tensor([2]), torch.tensor([[0.5, 0.25]]), 3)
    fresh = Sums()
    for sums in (one, other):
        fresh.merge(sums)
    assert (fresh["n"].dtype, fresh["x"].dtype) == (torch.int32, torch.float64)
    assert fresh["n"].tolist() == [[0, 0], [0, 0], [2, 10]]
    assert fresh["x"].tolist() == [[0, 0], [0, 0], [1.0, 0.5]]
    assert one["n"].tolist() == [[0, 0], [0, 0], [1, 5]]


@pytest.mark.parametrize("every", [1, 3, 10])
def test_payloads_stay_with_their_samples(every: int) -> None:
    draw = torch.Generator().manual_seed(0)
    codes, rows = torch.rand(60, 4, generator=draw), torch.randn(60, 3, generator=draw)
    names = [f"{n * 37 % 60:02}" for n in range(60)]
    samples = TopSamples("image", top=5)
    for n, a in enumerate(range(0, 60, 6)):
        samples.add(names[a : a + 6], SparseCodes.from_dense(codes[a : a + 6]), rows[a : a + 6])
        if n % every == 0:
            samples._compact()
    assert samples.payload is not None
    assert torch.equal(samples.payload, torch.stack([rows[names.index(name)] for name in samples.ids]))


@pytest.mark.parametrize("d_sae", [1 << 16, (1 << 16) + 1, (1 << 16) + 7])
def test_latents_beyond_sixteen_bits_keep_their_own_samples(d_sae: int) -> None:
    last = d_sae - 1
    codes = SparseCodes(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0, last, 0, last]),
        torch.tensor([1.0, 4.0, 3.5, 3.0], dtype=torch.float64),
        2,
        d_sae,
    )
    samples = TopSamples("image", top=2)
    samples.add(("a", "b"), codes)
    found = samples.exemplars({i: Pair(i, None, None) for i in "ab"})
    assert [pair.id for pair, _ in found.of(0)] == ["b", "a"]
    assert [(pair.id, value) for pair, value in found.of(last)] == [("a", 4.0), ("b", 3.0)]
    assert not (samples.table()[1:last] >= 0).any()


def test_rows_of_one_picture_or_one_text_count_once_as_their_ids_tell() -> None:
    """`p.png#1` is the second caption of `p.png`: another text, but the same picture."""
    codes = SparseCodes.from_dense(torch.tensor([[2.0], [3.0], [1.0]]))
    ids = ("p.png", "p.png#1", "q.png")
    kept = {}
    for modality in ("image", "text"):
        samples = TopSamples(modality, top=3)  # type: ignore[arg-type]
        samples.add(ids, codes)
        kept[modality] = [samples.ids[p] for p in samples.table()[0] if p >= 0]
    assert kept == {"image": ["p.png#1", "q.png"], "text": ["p.png#1", "p.png", "q.png"]}


def test_codes_that_do_not_fire_leave_no_sample() -> None:
    samples = TopSamples("text", top=2)
    samples.add(("a", "b"), SparseCodes.from_dense(torch.zeros(2, 3)), payload=torch.eye(2))
    assert (samples.ids, samples.payload) == ((), None)
    assert samples.table().tolist() == [[-1, -1]] * 3
    again = TopSamples("text", top=2)
    again.load_state(samples.state())
    assert (again.ids, again.d_sae) == ((), 3)
    again.add(("a",), SparseCodes.from_dense(torch.ones(1, 3)))
    assert again.ids == ("a",)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_states_of_all_processes_are_merged_in_their_order(ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange is played by a list of states; the real one runs in `test_tally_distributed`."""
    parts = [Sums() for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part.add("x", [1e16, 1.0, -1e16][rank])
        part.add(f"only {rank}", rank)
    sent = [part.state() for part in parts]
    asked: list[tuple[bool, int]] = []

    def broadcast(own: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
        asked.append((own.keys() == sent[-1].keys(), rank))
        return sent[rank]

    monkeypatch.setattr("cliplens.tally.reduce.is_distributed", lambda: True)
    monkeypatch.setattr("cliplens.tally.reduce.broadcast_tensors", broadcast)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    last = parts[-1]
    all_reduce([last])
    assert asked == [(True, rank) for rank in range(ranks)]
    expected = [1e16, 1e16 + 1.0, 1e16 + 1.0 - 1e16][ranks - 1]
    assert float(last["x"]) == expected
    assert last.names() == ("x", *(f"only {rank}" for rank in range(ranks)))


@pytest.mark.parametrize(
    ("theirs", "rows", "error"),
    [
        ([(None, ()), (None, ())], 1, None),
        ([(None, ()), ("their error", ())], None, "their error"),
        ([("first", ()), (None, ()), ("second", ())], None, "first"),
        ([(None, ()), (None, ("judge",))], None, None),
    ],
)
def test_what_fails_or_lacks_something_in_one_process_is_left_out_in_all(
    theirs: list[tuple[str | None, tuple[str, ...]]],
    rows: int | None,
    error: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merged: list[Metric] = []
    monkeypatch.setattr("cliplens.tally.one_pass.is_distributed", lambda: True)
    monkeypatch.setattr("cliplens.tally.one_pass.gather_objects", lambda item: theirs)
    monkeypatch.setattr("cliplens.tally.one_pass.all_reduce_one", merged.append)
    batches = [batch_of(("a",), torch.ones(1, 2), None)]
    found = tally(batches, [Counting()], decoder=None)
    assert found.figures == ({} if rows is None else {"rows": rows})
    assert [f["error"] for f in found.failed] == ([] if error is None else [error])
    assert len(merged) == (rows is not None)
    assert any("needs embeddings by a judge" in note for note in found.notes) == (theirs[-1][1] == ("judge",))
    merged.clear()
    assert tally(batches, [Counting()], decoder=None, merge=False).figures == {"rows": 1}
    assert merged == []


class GivesLatents(Counting):
    name = "latents"

    def findings(self, decoder: Any) -> Findings:
        return Findings({"value": np.arange(2.0)}, (Column("value", "a number"),))


class GivesThemToo(GivesLatents):
    name = "again"


class Silent(Counting):
    """Fails, after which later metrics go on."""

    name = "silent"

    def findings(self, decoder: Any) -> Findings:
        raise ValueError("nothing found")


def test_metrics_behind_one_that_fails_still_give_their_columns() -> None:
    batches = [batch_of(("a",), torch.ones(1, 2), None)]
    metrics = [Silent(), GivesLatents(), GivesThemToo(), WrongLength(), Counting()]
    found = tally(batches, metrics, decoder=torch.zeros(2, 3))
    assert {name: column.tolist() for name, column in found.table.columns.items()} == {
        "latent": [0, 1],
        "value": [0.0, 1.0],
    }
    assert found.figures == {"rows": 1}
    assert [f["plugin"] for f in found.failed] == ["silent", "again", "wrong_length"]
    assert found.failed[1]["error"] == "its columns ['value'] are already given by another metric"
    alone = tally(batches, [GivesLatents()], decoder=None).table
    assert list(alone.columns) == ["latent", "value"]
    assert alone["latent"].tolist() == [0, 1]


def test_values_of_zero_and_below_are_no_samples() -> None:
    codes = SparseCodes(
        torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]), torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64), 3, 1
    )
    samples = TopSamples("image", top=3)
    samples.add(("a", "b", "c"), codes)
    assert samples.ids == ("c",)
    assert samples.table().tolist() == [[0, -1, -1]]


def test_sums_keep_the_precision_of_python_numbers() -> None:
    sums = Sums()
    for _ in range(10):
        sums.add("tenth", 0.1)
    sums.add("many", 2**60 + 1)
    sums.add("half", torch.tensor(0.5, dtype=torch.float16))
    assert float(sums["tenth"]) == sum([0.1] * 10)
    assert int(sums["many"]) == 2**60 + 1
    assert [sums[name].dtype for name in sums.names()] == [torch.float64, torch.int64, torch.float64]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_of_pairs_that_share_a_picture_or_a_text_the_strongest_stands_for_it(modality: Any) -> None:
    g = torch.Generator().manual_seed(9)
    dense = torch.randint(0, 5, (60, 30), generator=g).double()  # few values, so that ties abound
    keys = np.arange(60, dtype=np.uint64) % np.uint64(7)
    ids = tuple(f"{i:02d}" for i in torch.randperm(60, generator=g).tolist())
    samples, parts = TopSamples(modality, top=4), TopSamples(modality, top=4)
    for a in range(0, 60, 11):
        one = TopSamples(modality, top=4)
        for held in (samples, one):
            held.add(ids[a : a + 11], SparseCodes.from_dense(dense[a : a + 11]), keys=keys[a : a + 11])
        parts.merge(one)
    for latent in range(30):
        best: dict[int, tuple[float, str]] = {}
        for value, name, key in zip(dense[:, latent].tolist(), ids, keys.tolist(), strict=True):
            if value > 0:
                best[key] = min(best.get(key, (0.0, "")), (-value, name))
        expected = [(name, -value) for value, name in sorted(best.values())[:4]]
        assert _kept(samples, latent, ids) == _kept(parts, latent, ids) == expected


class NeedsPairs(Counting):
    name = "needs_pairs"
    needs = frozenset({"pairs"})


@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)])
def test_pairs_are_images_and_captions(sides: tuple[bool, bool]) -> None:
    image, text = (torch.ones(1, 2) if side else None for side in sides)
    found = tally([batch_of(("a",), image, text)], [NeedsPairs()], decoder=None)
    assert bool(found.figures) == all(sides)
    assert any("needs both an image and a caption" in note for note in found.notes) != all(sides)


def test_a_metric_is_released_before_the_findings_of_the_next() -> None:
    held: list[weakref.ref[Metric]] = []
    alive: list[list[bool]] = []

    class Watching(Counting):
        def findings(self, decoder: Any) -> Findings:
            alive.append([other() is not None for other in held])
            return Findings()

    def made() -> Iterator[Metric]:
        for _ in range(3):
            metric = Watching()
            held.append(weakref.ref(metric))
            yield metric

    tally(batches_of(planted_codes(600, 4)), made(), decoder=None)
    assert alive == [[True, True, True], [False, True, True], [False, False, True]]


def test_freed_memory_goes_back_every_few_batches_of_a_pass_and_before_each_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trimmed: list[str] = []
    monkeypatch.setattr("cliplens.run.scoring.trim_memory", lambda: trimmed.append("pass"))
    monkeypatch.setattr("cliplens.tally.one_pass.trim_memory", lambda: trimmed.append("finding"))
    batches = list(batches_of(planted_codes(20, 4), 1))
    monkeypatch.setattr("cliplens.run.scoring._TRIMMED", 8 * batches[0].codes.d_sae)
    tally(_watched(iter(batches), [TopSamples("image")], shown=False), [Counting(), Counting()], decoder=None)
    assert trimmed == ["pass"] * 2 + ["finding"] * 2
