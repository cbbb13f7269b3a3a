"""Real drawings with real names: noto_emoji through a tiny model, live and cached, damaged files and all."""

import os
from pathlib import Path

import pytest
import torch

from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs, Quarantine, read_pairs
from cliplens.sites import sites_of
from cliplens.store import Cache, Provider, harvest, provider_of

DATA = Path(os.environ.get("CLIPLENS_DATA", "/no/such/folder"))
EMOJI = DATA / "noto_emoji" / "emoji.csv"
EMBEDDING = sites_of("hook_embedding")
pytestmark = pytest.mark.skipif(not EMOJI.exists(), reason="CLIPLENS_DATA does not name a folder with noto_emoji")


def emoji() -> Pairs:
    return read_pairs(EMOJI, image_column="file", caption_column="name", image_root=EMOJI.parent / "images")


def same_live_and_cached(clip: HookedCLIP, pairs: Pairs, folder: Path, held: Quarantine) -> Cache:
    cache = harvest(clip, pairs, EMBEDDING, folder, dtype="float32", quarantine=held)
    live = provider_of(clip, pairs, EMBEDDING, batch_size=2 * len(cache), paired=True, quarantine=held)
    image, text = EMBEDDING
    cached = Provider.from_cache(cache, image=image, text=text, batch_size=2 * len(cache), paired=True)
    a, b = (next(provider).sort(0).values for provider in (live, cached))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    return cache


def test_all_names_are_there_and_ids_are_files() -> None:
    pairs = emoji()
    assert len(pairs) == 3403
    assert pairs.ids[0] == "emoji_u1f600.png"
    assert pairs[0].caption == "grinning face"


def test_damaged_files_and_an_empty_name_are_set_aside_and_nothing_else(clip: HookedCLIP, tmp_path: Path) -> None:
    good = emoji()[:120]
    images, captions = [p.source for p in good], list(good.captions)
    whole = images[5].read_bytes()  # type: ignore[union-attr]
    for place, content in ((5, whole[: len(whole) // 2]), (50, b"\x89PNG no more"), (90, b"")):
        images[place] = tmp_path / f"{place}.png"
        images[place].write_bytes(content)  # type: ignore[union-attr]
    captions[70] = "  "
    planted = Pairs(good.ids, images, captions, name="planted")
    held = Quarantine(tmp_path / "quarantine.jsonl", max_bad=0.05)
    cache = same_live_and_cached(clip, planted, tmp_path / "c", held)
    bad = {good.ids[p] for p in (5, 50, 70, 90)}
    assert set(held.reasons) == bad
    assert set(cache.ids) == set(good.ids) - bad
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_two_thousand_live_and_cached(clip: HookedCLIP, tmp_path: Path) -> None:
    cache = same_live_and_cached(clip, emoji()[:2000], tmp_path / "c", Quarantine())
    assert len(cache) == 2000
