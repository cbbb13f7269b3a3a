"""The files of a cache, number by number, against docs/cache-format.md: plans, shards, records, manifests."""

import hashlib
import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cliplens.distributed import Group
from cliplens.errors import DamagedError, InputError, MismatchError, NonFiniteError, PairsError
from cliplens.hooked import HookedCLIP
from cliplens.keys import pair_keys
from cliplens.pairs import Decoded, Pairs, Quarantine
from cliplens.sites import Site
from cliplens.store import Cache, Embeddings, harvest
from cliplens.store.arrow import HashedStream, ShardFile, ShardSchema, read_table
from cliplens.store.embeddings import EmbeddingsReader
from cliplens.store.manifest import ShardRecord, check_covers, check_same_plan, read_plan, record_path, write_plan
from cliplens.store.plan import Plan, _compute, plan_harvest
from cliplens.store.shard_writer import ShardWriter, _cast
from cliplens.stream import SiteActs
from support.pictures import noise_pairs

HARVEST = importlib.import_module("cliplens.store.harvest")
N, D = 10, 6
BOTH = [Site("vision", "hook_embedding"), Site("text", "hook_embedding")]


def embeddings(n: int = N, bad: tuple[int, ...] = ()) -> Embeddings:
    image, text = (np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32) for seed in (0, 1))
    image[list(bad)] = np.nan
    return Embeddings(image, text)


def pairs(n: int = N) -> Pairs:
    return Pairs([f"p{i}" for i in range(n)], None, [f"caption {i}" for i in range(n)], name="ten")


def plan_of(n: int = N, forward_batch: int = 2, shard_pairs: int | None = 4, **changes: Any) -> Plan:
    reader = EmbeddingsReader(embeddings(n), BOTH)
    asked = {"dtype": "float16", "shuffle": "none", "seed": 5, **changes}
    return plan_harvest(
        reader,
        pairs(n),
        reader.decoder(pairs(n)),
        asked["dtype"],
        forward_batch,
        shard_pairs,
        asked["shuffle"],
        asked["seed"],
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return harvest(
        embeddings(bad=(5,)),
        pairs(),
        BOTH,
        tmp_path_factory.mktemp("c") / "cache",
        forward_batch=2,
        shard_pairs=4,
        shuffle="none",
        quarantine=Quarantine(max_bad=0.5),
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def written(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


# --- files


def test_every_file_of_a_cache_is_as_specified(cache: Cache) -> None:
    folder = cache.folder
    shards = [f"data-{n:05d}-of-00003.arrow" for n in range(3)]
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    per_site = {f"{s}/{name}" for s in BOTH for name in (*shards, "dataset_info.json", "state.json", "manifest.json")}
    records = {f"shards/{n:05d}.json" for n in range(3)}
    assert names == {"manifest.json", *(f"pairs/{name}" for name in shards), *per_site, *records}
    manifest = read(folder / "manifest.json")
    digest = hashlib.sha256()
    for record in cache.records:
        for name, file in sorted(record.files.items()):
            assert written(folder / name) == {"sha256": file.sha256, "bytes": file.bytes}
            digest.update(f"{name} {file.sha256}\n".encode())
    totals = {
        "complete": True,
        "rows": 9,
        "truncated": 0,
        "bad": 1,
        "bytes": sum(f.bytes for r in cache.records for f in r.files.values()),
        "sha256": digest.hexdigest(),
    }
    assert {name: manifest[name] for name in totals} == totals
    assert {k: v for k, v in manifest.items() if k not in totals} == json.loads(json.dumps(cache.plan.as_json()))
    assert "pictures" not in manifest
    for site in BOTH:
        own = folder / str(site)
        assert read(own / "dataset_info.json") == {
            "features": {"hook_embedding": {"shape": [1, D], "dtype": "float16", "_type": "Array2D"}}
        }
        assert read(own / "state.json") == {
            "_data_files": [{"filename": name} for name in shards],
            "_fingerprint": cache.plan.sha256[:16],
            "_format_columns": None,
            "_format_type": None,
            "_split": None,
            "_format_kwargs": {},
            "_output_all_columns": False,
        }
        files = read(own / "manifest.json")["files"]
        assert files == {name: written(own / name) for name in shards}


def test_the_record_of_each_shard_names_its_rows_its_bad_pairs_and_its_plan(cache: Cache) -> None:
    records = [read(record_path(cache.folder, n)) for n in range(3)]
    assert [(r["shard"], r["rows"], r["truncated"], r["bad"]) for r in records] == [
        (0, 4, 0, []),
        (1, 3, 0, [[5, "nan or inf in its embedding"]]),
        (2, 2, 0, []),
    ]
    assert {r["plan"] for r in records} == {cache.plan.sha256}
    assert all(set(r["files"]) == {f"{f}/data-{n:05d}-of-00003.arrow" for f in ("pairs", *map(str, BOTH))}
               for n, r in enumerate(records))  # fmt: skip
    assert (len(cache), cache.quarantined, cache.truncated) == (9, 1, 0)
    assert cache.indices.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    table = read_table(cache.folder / "pairs" / "data-00001-of-00003.arrow")
    assert table.to_pydict() == {"place": [4, 6, 7], "id": ["p4", "p6", "p7"]}
    assert repr(cache) == f"Cache({cache.folder}, 9 pairs at vision.hook_embedding, text.hook_embedding)"


def test_a_shard_opens_as_datasets_of_hugging_face(cache: Cache) -> None:
    path = cache.folder / str(BOTH[0]) / "data-00000-of-00003.arrow"
    with pa.memory_map(str(path)) as mapped:
        schema = pa.ipc.open_stream(mapped).schema
    field = schema.field(0)
    about = {**(field.metadata or {})}
    if isinstance(field.type, pa.ExtensionType):  # where `datasets` has registered its own type
        assert "Array2D" in str(type(field.type))
    else:
        assert about[b"ARROW:extension:name"] == b"datasets.features.features.Array2DExtensionType"
        assert json.loads(about[b"ARROW:extension:metadata"]) == [[1, D], "float16"]
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"]["hook_embedding"]["shape"] == [1, D]
    made = ShardSchema("h", 3, 5, "float32", token_ids=True)
    assert made.arrow.field(0).metadata[b"ARROW:extension:metadata"] == b'[[3, 5], "float32"]'
    assert made.features["token_ids"] == {
        "feature": {"dtype": "int32", "_type": "Value"},
        "length": 3,
        "_type": "List",
    }


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("token_ids", [True, False])
def test_the_size_of_a_pair_on_disk_is_what_the_plan_counts(dtype: str, token_ids: bool, tmp_path: Path) -> None:
    schema = ShardSchema("h", 3, 5, dtype, token_ids=token_ids)
    sizes = []
    for n in (1000, 3000):
        ids = np.zeros((n, 3), dtype=np.int32) if token_ids else None
        with HashedStream(tmp_path / f"{n}.arrow", schema.arrow) as stream:
            for batch in schema.record_batches(np.zeros((n, 3, 5), dtype=dtype), ids):
                stream.add(batch)
            told = stream.finish()
        assert written(tmp_path / f"{n}.arrow") == {"sha256": told.sha256, "bytes": told.bytes}
        sizes.append(told.bytes)
    assert (sizes[1] - sizes[0]) / 2000 == pytest.approx(schema.bytes_per_pair, abs=0.1)


@pytest.mark.parametrize("at_once", [1, 15, 30, 31, 2**28])
def test_any_range_of_a_shard_is_read_over_its_record_batches(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliplens.store.arrow._VALUES_PER_BATCH", at_once)
    schema = ShardSchema("h", 3, 5, "float32", token_ids=True)
    acts = np.arange(7 * 15, dtype=np.float32).reshape(7, 3, 5)
    ids = np.arange(21, dtype=np.int32).reshape(7, 3)
    batches = list(schema.record_batches(acts, ids))
    assert [len(b) for b in batches] == {1: [1] * 7, 15: [1] * 7, 30: [2, 2, 2, 1], 31: [2, 2, 2, 1]}.get(at_once, [7])
    with HashedStream(tmp_path / "s.arrow", schema.arrow) as stream:
        for batch in batches:
            stream.add(batch)
        stream.finish()
        assert stream.closed
    file = ShardFile(tmp_path / "s.arrow", "h")
    assert len(file) == 7
    for start in range(7):
        for stop in range(start + 1, 8):
            np.testing.assert_array_equal(file.read(start, stop), acts[start:stop])
    np.testing.assert_array_equal(np.array(read_table(tmp_path / "s.arrow")["token_ids"].to_pylist()), ids)


def test_files_that_are_no_shards_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "s.arrow").write_bytes(b"no stream of Arrow at all")
    for call in (lambda: ShardFile(tmp_path / "s.arrow", "h"), lambda: read_table(tmp_path / "s.arrow")):
        with pytest.raises(DamagedError, match=r"Expected an Arrow stream in .*s\.arrow.*it rewrites this shard only"):
            call()


# --- plans


@pytest.mark.parametrize(
    ("n", "forward_batch", "few", "shard_bytes", "expected"),
    [
        (40, 3, 8, 10**9, 6),  # 8 pairs are few: two batches
        (640, 3, 4, 10**9, 9),  # a 64th of the pairs, in whole batches
        (640, 3, 4, 5 * 16 + 1, 3),  # five pairs of 16 bytes fit
        (640, 3, 4, 1, 3),  # never less than a batch
        (640, 1, 4, 1, 1),
        (640, 1, 9, 10**9, 10),
        (639, 1, 9, 10**9, 9),
    ],
)
def test_the_default_size_of_a_shard(
    n: int, forward_batch: int, few: int, shard_bytes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliplens.store.plan._FEW_PAIRS", few)
    monkeypatch.setattr("cliplens.store.plan._SHARD_BYTES", shard_bytes)
    plan = plan_of(n, forward_batch, None)
    assert plan.sites[0].schema.bytes_per_pair in (16, 20)
    if shard_bytes == 81:
        monkeypatch.setattr("cliplens.store.plan._SHARD_BYTES", 5 * plan.sites[0].schema.bytes_per_pair)
        plan = plan_of(n, forward_batch, None)
    assert plan.shard_pairs == expected


def test_a_plan_counts_its_shards_and_bytes_and_comes_back_from_its_file() -> None:
    plan = plan_of()
    assert (plan.n_shards, list(plan.names), [plan.pairs_in(n) for n in plan.names]) == (3, [0, 1, 2], [4, 4, 2])
    assert plan.bytes_per_pair == 2 * plan.sites[0].schema.bytes_per_pair + 64
    assert (plan.batch_size, plan.compute, plan.seed, plan.dtype) == (2, "float32", 5, "float16")
    assert [plan.indices(n).tolist() for n in plan.names] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    again = Plan.from_json(json.loads(json.dumps(plan.as_json())))
    assert again == plan
    assert again.sha256 == plan.sha256
    assert plan_of(seed=6).sha256 != plan.sha256


@pytest.mark.parametrize(
    ("shuffle", "expected"),
    [
        ("all", [[9, 7, 0, 2], [8, 5, 4, 3], [1, 6]]),
        ("local", [[0, 2, 3, 1], [7, 5, 4, 6], [9, 8]]),
    ],
)
def test_the_order_of_a_seed_never_changes(shuffle: str, expected: list[list[int]]) -> None:
    """Old caches are continued by new versions, so these orders are part of the format."""
    plan = plan_of(shuffle=shuffle)
    assert [plan.indices(n).tolist() for n in plan.names] == expected


def test_what_a_forward_pass_does_is_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = EmbeddingsReader(embeddings(), BOTH)
    told = []
    for autocast, compiled in ((None, None), ("bfloat16", None), ("bfloat16", object()), (None, object())):
        monkeypatch.setattr(reader, "autocast", autocast)
        monkeypatch.setattr(reader, "compiled", compiled)
        told.append(_compute(reader))
    assert told == [
        "float32",
        "float32, autocast bfloat16",
        "float32, autocast bfloat16, compiled",
        "float32, compiled",
    ]


def test_the_form_is_that_of_the_first_good_pair_among_sixty_four() -> None:
    for bad, fine in ((range(63), True), (range(64), False)):
        reader = EmbeddingsReader(embeddings(70, tuple(bad)), BOTH)
        ask = (reader, pairs(70), reader.decoder(pairs(70)), "float32", 8, None, "all", 0)
        if fine:
            assert plan_harvest(*ask).sites[0].schema.d_in == D
        else:
            with pytest.raises(PairsError, match=r"a good pair among the first 64, but found none; pair 'p0': nan or"):
                plan_harvest(*ask)


# --- positions


@pytest.mark.parametrize("token", ["all", "patches"])
def test_token_ids_name_the_picture_and_leave_out_the_class_token(clip: HookedCLIP, token: str, tmp_path: Path) -> None:
    site = Site("vision", "blocks.1.hook_resid_post")
    cache = harvest(
        clip, noise_pairs(5), [site], tmp_path / "c", token=token, forward_batch=2, shard_pairs=3, shuffle="none"
    )
    ids = [row for n in cache.plan.names for row in table_of(cache, site, n)["token_ids"].to_pylist()]
    own = [[i + 1] * 4 for i in range(5)]
    assert ids == ([[0, *row] for row in own] if token == "all" else own)
    assert "text_length" not in read_table(cache.folder / "pairs" / "data-00000-of-00002.arrow").column_names


def table_of(cache: Cache, site: Site, shard: int) -> pa.Table:
    return read_table(cache.folder / str(site) / f"data-{shard:05d}-of-{cache.plan.n_shards:05d}.arrow")


def test_lengths_are_kept_where_all_positions_of_captions_are(clip: HookedCLIP, tmp_path: Path) -> None:
    site = Site("text", "blocks.1.hook_resid_post")
    given = noise_pairs(5)
    cache = harvest(clip, given, [site], tmp_path / "c", token="all", forward_batch=2, shard_pairs=3, shuffle="none")
    lengths = [n for s in cache.plan.names for n in cache._pairs(s)["text_length"].to_pylist()]
    tokens = clip.tokenizer(given.captions)
    assert lengths == (tokens != 0).sum(1).tolist()
    got = [table_of(cache, site, n)["token_ids"].to_pylist() for n in cache.plan.names]
    assert [row for rows in got for row in rows] == tokens.tolist()
    for block in cache.blocks(None, 2):
        assert cache.counts(block, site).tolist() == [lengths[3 * block.shard + i] for i in block.kept]
        assert len(cache.rows(block, site)) == cache.counts(block, site).sum()


# --- writing


def test_the_largest_number_of_float16_is_stored_and_the_next_refused() -> None:
    plan = plan_of().sites[0]
    one = torch.ones(1, dtype=torch.int64)
    for value, fits in ((65504.0, True), (-65504.0, True), (65505.0, False), (-65536.0, False)):
        acts = SiteActs(torch.tensor([[[value, 0.0]]]), one, "single")
        if fits:
            assert _cast(acts, plan, 3).tolist() == [[[value, 0.0]]]
        else:
            with pytest.raises(NonFiniteError, match=f"found {abs(value):g} in batch 3"):
                _cast(acts, plan, 3)


@pytest.mark.parametrize(("row", "batch"), [(0, 0), (3, 1), (4, 2), (9, 4)])
def test_a_number_too_large_for_float16_is_named_with_its_batch(row: int, batch: int, tmp_path: Path) -> None:
    given = embeddings()
    given.image_rows[row, 0] = 70_000
    with pytest.raises(NonFiniteError, match=rf"found 70000 in batch {batch}\."):
        harvest(given, pairs(), BOTH, tmp_path / "c", forward_batch=2, shard_pairs=4, shuffle="none")


def test_a_shard_that_is_given_up_leaves_no_file(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, plan_of(), 0)
    assert len(list(tmp_path.rglob(".*.partial"))) == 3
    writer.abandon()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_batch_without_a_good_pair_adds_its_reasons_alone(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, plan_of(), 1)
    asked = np.array([4, 5], dtype=np.int64)
    bad = tuple((pairs().unidentified(i), f"reason {i}") for i in (4, 5))
    writer.add(Decoded(asked, asked[:0], (), None, None, bad), None, 0)
    writer.commit()
    record = ShardRecord.load(tmp_path, 1)
    assert record is not None
    assert (record.rows, record.bad) == (0, ((4, "reason 4"), (5, "reason 5")))


def test_a_harvest_that_fails_waits_for_its_writes_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: EmbeddingsReader, decoded: Decoded) -> Any:
        if 8 in decoded.indices.tolist():
            raise KeyError("broken")
        return stock(self, decoded)

    stock = EmbeddingsReader.read
    monkeypatch.setattr(EmbeddingsReader, "read", broken)
    with pytest.raises(KeyError, match="broken"):
        harvest(embeddings(), pairs(), BOTH, tmp_path / "c", forward_batch=1, shard_pairs=4, shuffle="none")
    assert list((tmp_path / "c").rglob(".*.partial")) == []
    assert sorted(p.name for p in (tmp_path / "c" / "shards").iterdir()) == ["00000.json", "00001.json"]
    with pytest.raises(InputError, match="found 2 of 3 shards"):
        Cache.open(tmp_path / "c")


# --- what is there already


def test_a_record_that_cannot_be_read_and_one_of_another_plan_are_redone(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cache.folder, tmp_path / "c")
    before = {p: p.read_bytes() for p in sorted((tmp_path / "c").rglob("*")) if p.is_file()}
    record_path(tmp_path / "c", 0).write_text('{"shard": 0')
    other = read(record_path(tmp_path / "c", 2))
    record_path(tmp_path / "c", 2).write_text(json.dumps({**other, "plan": "of another"}))
    again = harvest(
        embeddings(bad=(5,)),
        pairs(),
        BOTH,
        tmp_path / "c",
        forward_batch=2,
        shard_pairs=4,
        shuffle="none",
        quarantine=Quarantine(max_bad=0.5),
    )
    said = capsys.readouterr().err
    assert "activations: shard 0 is redone: " in said
    assert "activations: shard 2 is redone: its record belongs to another harvest" in said
    assert "shard 1 is redone" not in said
    assert "activations: 1 of 3 shards are there already; going on where it stopped" in said
    assert {p: p.read_bytes() for p in before} == before
    assert again.ids == cache.ids


def test_a_lost_manifest_keeps_finished_shards_and_drops_those_of_other_plans(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cache.folder, tmp_path / "c")
    (tmp_path / "c" / "manifest.json").write_text("{")
    record_path(tmp_path / "c", 1).write_text(json.dumps({**read(record_path(tmp_path / "c", 1)), "plan": "x"}))
    (tmp_path / "c" / "shards" / "00007.json").write_text("[]")
    harvest(
        embeddings(bad=(5,)),
        pairs(),
        BOTH,
        tmp_path / "c",
        forward_batch=2,
        shard_pairs=4,
        shuffle="none",
        quarantine=Quarantine(max_bad=0.5),
    )
    said = capsys.readouterr().err
    assert "activations: the manifest is written again: " in said
    assert "activations: 2 of 3 shards are there already" in said
    assert not (tmp_path / "c" / "shards" / "00007.json").exists()


def test_only_the_first_process_prepares_the_folder(tmp_path: Path) -> None:
    HARVEST._prepare(tmp_path / "c", plan_of(), Group(1, 2))
    assert not (tmp_path / "c").exists()
    HARVEST._prepare(tmp_path / "c", plan_of(), Group(0, 2))
    found = read_plan(tmp_path / "c")
    assert found is not None
    assert found[1] is False


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_room_for_what_is_still_to_be_written_is_enough(
    spare: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.arrow").write_bytes(b"x" * 100)
    (tmp_path / "s" / ".b.arrow").write_bytes(b"x" * 50)  # hidden: unfinished
    need = plan.bytes_per_pair * 10 - 100
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=need + spare))
    monkeypatch.setattr(HARVEST, "_WORTH_SAYING", need)
    if fits:
        HARVEST._check_room(tmp_path, plan)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(HARVEST, "_WORTH_SAYING", need - 1)
        HARVEST._check_room(tmp_path, plan)
        assert "to write into" in capsys.readouterr().err
    else:
        with pytest.raises(InputError, match="of free space in"):
            HARVEST._check_room(tmp_path, plan)


def test_batches_never_span_two_shards() -> None:
    batches = HARVEST._Batches(plan_of(11, 3, 5), [0, 2, 1])
    assert [b.tolist() for b in batches] == [[0, 1, 2], [3, 4], [10], [5, 6, 7], [8, 9]]
    assert (len(batches), batches.of(0), batches.of(2)) == (5, 2, 1)


def test_altered_files_are_found_by_size_and_by_hash(cache: Cache, tmp_path: Path) -> None:
    shutil.copytree(cache.folder, tmp_path / "c")
    record = cache.records[0]
    name = sorted(record.files)[0]
    path = tmp_path / "c" / name
    whole = path.read_bytes()
    assert record.damage(tmp_path / "c", by_hash=True) is None
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert record.damage(tmp_path / "c", by_hash=False) is None
    assert record.damage(tmp_path / "c", by_hash=True) == f"{name} was altered since it was written"
    path.write_bytes(whole + b"x")
    said = record.damage(tmp_path / "c", by_hash=False)
    assert said == f"{name} has {len(whole) + 1} bytes, {len(whole)} were written"
    path.unlink()
    assert record.damage(tmp_path / "c", by_hash=False) == f"{name} is missing"
    assert ShardRecord.load(tmp_path / "c", 9) is None


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[1]", DamagedError, "JSON without a format"),
        ('{"pairs": 1}', DamagedError, "JSON without a format"),
        ('{"format": "cliplens-activations-9"}', InputError, "found 'cliplens-activations-9'"),
        ('{"format": "cliplens-activations-1"}', DamagedError, "a whole manifest in"),
    ],
)
def test_manifests_that_are_none(content: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(error, match=message):
        read_plan(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("dtype", True), ("seed", "0"), ("n_pairs", 1.5), ("pairs", None)])
def test_a_manifest_with_a_value_of_another_type_is_damaged(name: str, value: object, tmp_path: Path) -> None:
    write_plan(tmp_path, plan_of(), None)
    whole = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**whole, name: value}))
    with pytest.raises(DamagedError, match=f"TypeError: {name} is {value!r}"):
        read_plan(tmp_path)


def test_caches_that_do_not_record_how_pictures_were_opened_are_continued(tmp_path: Path) -> None:
    old, new = plan_of(), replace(plan_of(), pictures="upright on white")
    check_same_plan(tmp_path, old, new)
    with pytest.raises(MismatchError, match=r"pictures: 'upright on white' there, None asked"):
        check_same_plan(tmp_path, new, old)
    with pytest.raises(MismatchError, match=r"found seed: 5 there, 6 asked\. Fix"):
        check_same_plan(tmp_path, old, plan_of(seed=6))


def test_keys_follow_the_picture_and_blocks_stay_in_a_shard(cache: Cache) -> None:
    assert (cache.keys == pair_keys(cache.ids)).all()
    image_ids = [f"i{n // 2}" for n in range(N)]
    turned = cache.by_picture(image_ids)
    assert (turned.keys == pair_keys([image_ids[n] for n in cache.indices])).all()
    assert (cache.keys == pair_keys(cache.ids)).all()
    blocks = list(cache.blocks(None, 3))
    assert [(b.shard, b.kept.tolist()) for b in blocks] == [(0, [0, 1, 2]), (0, [3]), (1, [0, 1, 2]), (2, [0, 1])]
    few = list(cache.blocks(lambda keys: keys == cache.keys[5], 3))
    assert [(b.shard, b.kept.tolist()) for b in few] == [(0, []), (0, []), (1, [1]), (2, [])]
    assert cache.rows(few[0], BOTH[0]).shape == (0, D)
    made = cache.provenance(BOTH, centred=True)
    assert (made.sites, made.d_in, made.token, made.centred) == (tuple(map(str, BOTH)), D, "auto", True)
    assert made.pairs_sha256 == pairs().sha256
    assert made.model == embeddings(bad=(5,)).identity
    assert cache.folder_of("text.hook_embedding") == cache.folder / "text.hook_embedding"


def test_batches_of_kept_pairs_are_whole_over_shards(cache: Cache) -> None:
    keep = lambda keys: np.isin(keys, cache.keys[[0, 2, 3, 4, 7]])  # noqa: E731
    got = list(cache.batches(BOTH[0], None, keep=keep, batch_size=2))
    assert [b.ids for b in got] == [("p0", "p2"), ("p3", "p4"), ("p8",)]
    assert all(b.text is None for b in got)
    whole = embeddings().image_rows
    np.testing.assert_allclose(torch.cat([b.image for b in got]), whole[[0, 2, 3, 4, 8]], atol=2e-3)
    assert len(list(cache.batches(BOTH[0], None))) == 1
    with pytest.raises(InputError, match="a site to read, but found none"):
        next(cache.batches(None, None))


def test_identities_of_embeddings_are_those_of_their_numbers() -> None:
    image, text = embeddings().image_rows, embeddings().text_rows
    digest = hashlib.sha256(image.tobytes() + text.tobytes()).hexdigest()
    both = embeddings().identity
    assert (both.name, both.pretrained, both.weights_sha256, both.preprocess) == ("embeddings", None, digest, "none")
    only = hashlib.sha256(b"none" + text.tobytes()).hexdigest()
    assert Embeddings(None, text).identity.weights_sha256 == only
    assert len(Embeddings(None, text)) == N
    assert (embeddings().towers, embeddings().device.type, embeddings().dtype) == ({}, "cpu", torch.float32)
    with pytest.raises(InputError, match="embeddings of images or of captions, but found none"):
        Embeddings(None, None)
    with pytest.raises(MismatchError, match=r"one id per row \(10\), but found 3"):
        Embeddings(image, text, ids=("a", "b", "c"))


@pytest.mark.parametrize("done", [0, 1, 3])
def test_shards_that_are_there_already_are_counted_and_none_are_not_spoken_of(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(HARVEST, "_say", said.append)
    bars: list[int] = []
    bar = HARVEST._bar
    monkeypatch.setattr(HARVEST, "_bar", lambda *given: _counting(bar(*given), bars))

    def again() -> Cache:
        asked = {"forward_batch": 2, "shard_pairs": 4, "shuffle": "none", "quarantine": Quarantine(max_bad=0.5)}
        return harvest(embeddings(bad=(5,)), pairs(), BOTH, tmp_path, **asked)

    again()
    assert said == []
    assert sum(bars) == N  # bad pairs move the bar too
    for number in range(done, 3):
        record_path(tmp_path, number).unlink()
    again()
    assert [f"{done} of 3 shards are there already" in words for words in said] == [True] * (done > 0)


def _counting(bar: Any, counts: list[int]) -> Any:
    update = bar.update
    bar.update = lambda n=1: counts.append(n) or update(n)
    return bar


def test_a_cache_covers_fewer_sites_and_any_size_of_shards_and_nothing_else(tmp_path: Path) -> None:
    there = plan_of(shard_pairs=4)
    check_covers(tmp_path, there, replace(plan_of(shard_pairs=8), sites=there.sites[1:]))
    other = replace(there.sites[0], site=Site("vision", "hook_pooled"))
    with pytest.raises(MismatchError, match=r"activations of vision.hook_pooled in .*found those of vision.hook_emb"):
        check_covers(tmp_path, there, replace(there, sites=(there.sites[0], other)))
    with pytest.raises(MismatchError, match="made by this plan, but found seed: 5 there, 6 asked"):
        check_covers(tmp_path, there, plan_of(seed=6, shard_pairs=8))
