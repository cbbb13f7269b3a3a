"""Harvest: the cache holds what the model gives, whole or not at all, the same however often it was interrupted."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cliplens
from cliplens.errors import DamagedError, InputError, MismatchError, NonFiniteError, PairsError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.keys import held_out
from cliplens.pairs import Pairs, Quarantine
from cliplens.sites import Site, sites_of
from cliplens.store import Cache, Provider, harvest
from cliplens.stream import stream
from support.pictures import files_of, noise_pairs
from support.tiny import TinyTokenizer, tiny_model, tiny_preprocess

EMBEDDING = sites_of("hook_embedding")
RESIDUAL = sites_of("blocks.1.hook_resid_post")
SITES = [*EMBEDDING, *RESIDUAL]
FORK = multiprocessing.get_context("fork")


def slowly(image: Image.Image) -> Tensor:
    time.sleep(0.002)
    return tiny_preprocess(image)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return noise_pairs(70)


@pytest.fixture(scope="module")
def cache(clip: HookedCLIP, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return harvest(clip, pairs, SITES, tmp_path_factory.mktemp("caches") / "cache", forward_batch=8, shard_pairs=24)


@pytest.fixture(scope="module")
def slow_clip() -> HookedCLIP:
    return cliplens.wrap(tiny_model(), preprocess=slowly, tokenizer=TinyTokenizer())


@pytest.fixture(scope="module")
def uninterrupted(slow_clip: HookedCLIP, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "cache"
    return harvest(slow_clip, pairs, SITES, folder, forward_batch=4, shard_pairs=12).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_all_hooks_of_a_tower_in_one_pass_that_stops_at_the_deepest(
    clip: HookedCLIP, pairs: Pairs, tmp_path: Path
) -> None:
    sites = [*sites_of("blocks.0.hook_resid_pre"), *sites_of("blocks.0.hook_resid_post"), *RESIDUAL]
    ran: Counter[str] = Counter()
    handles = []
    for side, tower in clip.towers.items():
        last = tower.cfg.n_layers - 1
        for name in ("blocks.0.hook_resid_pre", f"blocks.{last}.hook_resid_pre", "hook_embedding"):
            watched = lambda *_, key=f"{side} {name}": ran.update([key])  # noqa: E731
            handles.append(tower.hook_dict[name].register_forward_hook(watched))
    try:
        cache = harvest(clip, pairs, sites, tmp_path / "c", forward_batch=10)
    finally:
        for handle in handles:
            handle.remove()
    assert set(cache.sites) == set(sites)
    assert ran == {f"{side} blocks.0.hook_resid_pre": 7 + 1 for side in clip.towers}  # and one pair to see the form


@pytest.mark.parametrize(("dtype", "near"), [("float16", 2e-3), ("float32", 1e-5)])
def test_the_cache_holds_what_the_model_gives(
    clip: HookedCLIP, pairs: Pairs, tmp_path: Path, dtype: str, near: float
) -> None:
    cache = harvest(clip, pairs, SITES, tmp_path / "c", forward_batch=8, shard_pairs=24, dtype=dtype)
    assert sorted(cache.indices.tolist()) == list(range(70))
    assert cache.indices.tolist() != list(range(70))
    assert cache.ids == pairs.take(cache.indices).ids
    for sites in (EMBEDDING, RESIDUAL):
        got = list(cache.batches(*sites, batch_size=13))
        live = next(stream(clip, pairs, sites, forward_batch=70))
        assert [len(g) for g in got] == [13] * 5 + [5]
        assert sum((g.ids for g in got), ()) == cache.ids
        for modality in ("image", "text"):
            rows = torch.cat([g.of(modality) for g in got])
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows, live.of(modality)[cache.indices], rtol=near, atol=near)


def test_a_part_of_the_pairs_by_key(cache: Cache) -> None:
    scored = list(cache.batches(*EMBEDDING, keep=lambda k: held_out(k, 0.3), batch_size=8))
    trained = list(cache.batches(*EMBEDDING, keep=lambda k: ~held_out(k, 0.3), batch_size=8))
    ids = [i for part in (scored, trained) for g in part for i in g.ids]
    assert sorted(ids) == sorted(cache.ids)
    assert all(len(g) == 8 for g in trained[:-1])
    whole = dict(zip(cache.ids, torch.cat([g.text for g in cache.batches(*EMBEDDING)]), strict=True))
    assert all(torch.equal(row, whole[i]) for g in scored for i, row in zip(g.ids, g.text, strict=True))


def test_sites_are_passed_by_name_too(cache: Cache) -> None:
    names = [str(site) for site in EMBEDDING]
    by_name, by_site = next(cache.batches(*names)), next(cache.batches(*EMBEDDING))
    assert by_name.ids == by_site.ids
    assert torch.equal(by_name.image, by_site.image)
    assert torch.equal(by_name.text, by_site.text)
    first = next(Provider.from_cache(cache, image=names[0], batch_size=8))
    assert torch.equal(first, next(Provider.from_cache(cache, image=EMBEDDING[0], batch_size=8)))


def test_all_positions_without_padding(clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    text = RESIDUAL[1]
    cache = harvest(
        clip, pairs, RESIDUAL, tmp_path / "c", token="all", dtype="float32", forward_batch=8, shard_pairs=24
    )
    live = next(stream(clip, pairs.take(cache.indices), [text], token="all", forward_batch=70))
    got = list(cache.batches(None, text, batch_size=9))
    assert sum((g.ids for g in got), ()) == live.ids
    torch.testing.assert_close(torch.cat([g.text for g in got]), live.text, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="one row per pair"):
        next(cache.batches(*RESIDUAL))


def test_saelens_opens_the_cache(clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    from sae_lens.training.activations_store import ActivationsStore

    cache = harvest(
        clip, pairs, RESIDUAL, tmp_path / "c", token="all", dtype="float32", forward_batch=8, shard_pairs=24
    )
    for site, context, width in ((RESIDUAL[0], 5, 64), (RESIDUAL[1], 8, 48)):
        assert (cache.site(site).schema.context_size, cache.site(site).schema.d_in) == (context, width)
        store = ActivationsStore(
            model=None,
            dataset=None,
            streaming=False,
            hook_name=site.hook,
            hook_head_index=None,
            context_size=context,
            d_in=width,
            n_batches_in_buffer=8,
            total_training_tokens=10_000,
            store_batch_size_prompts=4,
            train_batch_size_tokens=16,
            prepend_bos=False,
            normalize_activations="none",
            device=torch.device("cpu"),
            dtype="float32",
            cached_activations_path=str(cache.folder_of(site)),
        )
        found = torch.as_tensor(store.cached_activation_dataset[:6][site.hook])
        ids = torch.as_tensor(store.cached_activation_dataset[:6]["token_ids"]).long()
        first = pairs.take(cache.indices[:6])
        inputs = torch.stack([tiny_preprocess(p.image) for p in first]), TinyTokenizer()(first.captions)
        wanted = clip.run_with_cache(*inputs, names_filter=str(site))[1][str(site)]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(ids, inputs[1]) if site.side == "text" else (ids[:, 0] == 0).all()
        assert next(store.get_data_loader()).shape == (16, width)


def killed(work: Callable[[], object], after: float) -> None:
    process = FORK.Process(target=work)
    process.start()
    time.sleep(after)
    process.kill()
    process.join()


def test_a_killed_harvest_resumes_to_the_same_cache(
    slow_clip: HookedCLIP, pairs: Pairs, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    moments = random.Random(0)
    for _ in range(4):
        last = 0.1 + 0.4 * moments.random()
        killed(lambda: harvest(slow_clip, pairs, SITES, folder, forward_batch=4, shard_pairs=12), last)
    harvest(slow_clip, pairs, SITES, folder, forward_batch=4, shard_pairs=12)
    assert contents(folder) == contents(uninterrupted)


def test_unfinished_shards_are_not_valid(slow_clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    killed(lambda: harvest(slow_clip, pairs, EMBEDDING, tmp_path / "c", forward_batch=4, shard_pairs=12), 0.3)
    with pytest.raises(InputError, match=r"Expected a finished cache.*of 6 shards.*it continues where it stopped"):
        Cache.open(tmp_path / "c")


@pytest.mark.parametrize("how", ["altered", "cut", "missing"])
def test_only_the_damaged_shard_is_redone(
    cache: Cache, clip: HookedCLIP, pairs: Pairs, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(cache.folder, folder)
    before = contents(folder)
    victim = folder / str(RESIDUAL[0]) / "data-00001-of-00003.arrow"
    bytes_ = bytearray(victim.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    if how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(bytes_ if how == "altered" else bytes_[:-7])
    with pytest.raises(DamagedError, match=r"Expected shard 1 of .*data-00001-of-00003.*it rewrites this shard only"):
        Cache.open(folder, verify=True)
    others = {p: p.stat().st_mtime_ns for p in folder.rglob("data-*.arrow") if "00001-of" not in p.name}
    capsys.readouterr()
    harvest(clip, pairs, SITES, folder, forward_batch=8, shard_pairs=24)
    said = capsys.readouterr().err
    assert "activations: shard 1 is redone: vision.blocks.1.hook_resid_post/data-00001-of-00003.arrow" in said
    assert "activations: 2 of 3 shards are there already; going on where it stopped" in said
    harvest(clip, pairs, SITES, folder, forward_batch=8, shard_pairs=24)
    assert "activations: 3 of 3 shards are there already: nothing to do" in capsys.readouterr().err
    assert contents(folder) == before
    assert {p: p.stat().st_mtime_ns for p in others} == others


def in_group(rank: int, port: int, folder: Path, clip: HookedCLIP, pairs: Pairs) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    harvest(clip, pairs, SITES, folder, forward_batch=4, shard_pairs=12)


def two(*arguments: object) -> list[multiprocessing.Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=in_group, args=(rank, port, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def test_two_processes_one_of_which_dies_make_the_cache_one_makes(
    slow_clip: HookedCLIP, pairs: Pairs, uninterrupted: Path, tmp_path: Path
) -> None:
    dying = two(tmp_path / "c", slow_clip, pairs)
    time.sleep(0.5)
    for process in reversed(dying):
        process.kill()
        process.join()
    for process in two(tmp_path / "c", slow_clip, pairs):
        process.join()
        assert process.exitcode == 0
    assert contents(tmp_path / "c") == contents(uninterrupted)


def test_bad_pairs_are_left_out_and_told_again_on_resume(clip: HookedCLIP, tmp_path: Path) -> None:
    pairs = files_of(noise_pairs(60), tmp_path / "images")
    (tmp_path / "images" / "p7.png").write_bytes(b"x")
    planted = Pairs(pairs.ids, [p.source for p in pairs], [" " if p.id == "p9" else p.caption for p in pairs])
    for _ in range(2):
        held = Quarantine(tmp_path / "quarantine.jsonl", max_bad=0.05)
        cache = harvest(clip, planted, EMBEDDING, tmp_path / "c", forward_batch=8, shard_pairs=24, quarantine=held)
        assert set(held.reasons) == {"p7", "p9"}
        assert (len(cache), cache.quarantined, set(pairs.ids) - set(cache.ids)) == (58, 2, {"p7", "p9"})
    with pytest.raises(PairsError, match=r"at most 1 bad pairs among 60"):
        harvest(clip, planted, EMBEDDING, tmp_path / "d", forward_batch=8, quarantine=Quarantine(max_bad=0.01))


def test_cut_captions_are_counted(clip: HookedCLIP, pairs: Pairs, cache: Cache) -> None:
    read = stream(clip, pairs, EMBEDDING)
    list(read)
    assert cache.truncated == read.truncated > 0


def test_another_harvest_is_not_mixed_in(clip: HookedCLIP, pairs: Pairs, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"seed: 0 there, 1 asked"):
        harvest(clip, pairs, SITES, cache.folder, forward_batch=8, shard_pairs=24, seed=1)
    other = cliplens.wrap(tiny_model(seed=1), preprocess=tiny_preprocess, tokenizer=TinyTokenizer())
    with pytest.raises(MismatchError, match=r"model: .* there, .* asked"):
        harvest(other, pairs, SITES, cache.folder, forward_batch=8, shard_pairs=24)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(MismatchError, match="with other files in it"):
        harvest(clip, pairs, SITES, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_full_disk_is_seen_before_starting(clip: HookedCLIP, pairs: Pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(InputError, match=r"Expected \d+ kB of free space in .*, but found 5 kB free"):
        harvest(clip, pairs, SITES, tmp_path / "c")


def test_values_beyond_float16_stop_the_harvest(pairs: Pairs, tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.visual.ln_post.weight.mul_(1e7)
    clip = cliplens.wrap(model, preprocess=tiny_preprocess, tokenizer=TinyTokenizer())
    site = Site("vision", "hook_projected")
    with pytest.raises(NonFiniteError, match=r"within float16's range \(65504\).*batch 0.*--cache-dtype float32"):
        harvest(clip, pairs, [site], tmp_path / "c")
    assert len(harvest(clip, pairs, [site], tmp_path / "d", dtype="float32")) == 70


def test_wrong_options_are_errors(clip: HookedCLIP, pairs: Pairs, cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Arrow has no bfloat16"):
        harvest(clip, pairs, SITES, tmp_path / "c", dtype="bfloat16")
    with pytest.raises(UnknownNameError, match="shuffle"):
        harvest(clip, pairs, SITES, tmp_path / "c", shuffle="alll")
    with pytest.raises(UnknownNameError, match="site in this cache"):
        next(cache.batches(Site("vision", "blocks.0.hook_resid_post"), None))
    with pytest.raises(InputError, match=r"no manifest.json"):
        Cache.open(tmp_path)


@pytest.mark.parametrize("shuffle", ["local", "none"])
def test_other_orders(clip: HookedCLIP, pairs: Pairs, tmp_path: Path, shuffle: str) -> None:
    places = harvest(clip, pairs, EMBEDDING, tmp_path / "c", forward_batch=8, shard_pairs=24, shuffle=shuffle).indices
    assert (np.sort(places) == np.arange(70)).all()
    assert ((places // 24) == (np.arange(70) // 24)).all()
    assert (places == np.arange(70)).all() == (shuffle == "none")


def test_half_precision_products_are_near_and_are_in_the_plan(
    clip: HookedCLIP, pairs: Pairs, cache: Cache, tmp_path: Path
) -> None:
    half = harvest(clip, pairs, SITES, tmp_path / "c", forward_batch=8, shard_pairs=24, autocast="bfloat16")
    assert half.plan.compute == "float32, autocast bfloat16"
    near, exact = (next(c.batches(*EMBEDDING)).image for c in (half, cache))
    torch.testing.assert_close(near, exact, rtol=0.1, atol=0.03)
    assert not torch.equal(near, exact)
    with pytest.raises(MismatchError, match=r"compute: 'float32, autocast bfloat16' there, 'float32' asked"):
        harvest(clip, pairs, SITES, tmp_path / "c", forward_batch=8, shard_pairs=24)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_compiled_harvest_is_near_says_so_and_resumes_bit_for_bit(
    clip: HookedCLIP, pairs: Pairs, cache: Cache, tmp_path: Path
) -> None:
    asked = {"forward_batch": 8, "shard_pairs": 24, "compile": True}
    made = harvest(clip, pairs, SITES, tmp_path / "c", **asked)
    assert made.plan.compute == "float32, compiled"
    for a, b in zip(made.batches(*EMBEDDING), cache.batches(*EMBEDDING), strict=True):
        torch.testing.assert_close(a.image, b.image, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(a.text, b.text, rtol=1e-2, atol=1e-3)
    whole = contents(tmp_path / "c")
    (tmp_path / "c" / "shards" / "00001.json").unlink()
    torch.compiler.reset()
    harvest(clip, pairs, SITES, tmp_path / "c", **asked)
    assert contents(tmp_path / "c") == whole
    with pytest.raises(MismatchError, match=r"compute: 'float32, compiled' there, 'float32' asked"):
        harvest(clip, pairs, SITES, tmp_path / "c", forward_batch=8, shard_pairs=24)


@pytest.mark.parametrize(("shuffle", "matters"), [("all", True), ("local", True), ("none", False)])
def test_the_seed_decides_the_order(clip: HookedCLIP, cache: Cache, shuffle: str, matters: bool) -> None:
    first, again, other = (dataclasses.replace(cache.plan, shuffle=shuffle, seed=seed) for seed in (0, 0, 1))
    for shard in first.names:
        assert (first.indices(shard) == again.indices(shard)).all()
        assert np.sort(other.indices(shard)).tolist() != first.indices(shard).tolist() or not matters
    differ = any((first.indices(n) != other.indices(n)).any() for n in first.names)
    assert differ == matters


def test_each_shard_is_asked_by_its_own_keys(cache: Cache) -> None:
    asked: list[np.ndarray] = []

    def keep(of_pair: np.ndarray) -> np.ndarray:
        asked.append(of_pair)
        return held_out(of_pair, 0.4)

    got = [i for batch in cache.batches(*EMBEDDING, keep=keep, batch_size=8) for i in batch.ids]
    assert np.concatenate(asked).tolist() == cache.keys.tolist()
    assert got == [i for i, kept in zip(cache.ids, held_out(cache.keys, 0.4), strict=True) if kept]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the files that a process has mapped")
def test_a_pass_holds_few_shards_in_memory(clip: HookedCLIP, tmp_path: Path) -> None:
    whole = harvest(clip, noise_pairs(70), SITES, tmp_path / "c", forward_batch=2, shard_pairs=6)
    assert len(whole.records) > 10
    image, text = EMBEDDING
    for _ in whole.batches(image, text, batch_size=8):
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "hook_" in line}
        assert 1 <= len([path for path in mapped if str(tmp_path) in path]) <= 4
