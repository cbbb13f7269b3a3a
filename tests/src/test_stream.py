"""The stream: rows keep their pair, bad pairs leave both sides, the token choice is what it says."""

import numpy as np
import pytest
import torch
from PIL import Image

import cliplens
from cliplens.errors import InputError, MismatchError, NonFiniteError, PairsError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoded, Pairs, Quarantine
from cliplens.sites import Site, sites_of
from cliplens.stream import ReadBatch, SiteActs, SiteReader, finite, stream
from cliplens.stream.reader import _lengths
from support.pictures import files_of, noise_pairs
from support.tiny import TinyTokenizer, tiny_model, tiny_preprocess

RESIDUAL = sites_of("blocks.1.hook_resid_post")
VISION, TEXT = RESIDUAL


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return noise_pairs(11)


def by_hand(clip: HookedCLIP, pairs: Pairs, site: Site) -> torch.Tensor:
    """[pair, pos, d] by TransformerLens' own way, one forward for all."""
    images = torch.stack([tiny_preprocess(p.image) for p in pairs])
    tokens = TinyTokenizer()(pairs.captions)
    return clip.run_with_cache(images, tokens, names_filter=str(site))[1][str(site)]


def test_rows_are_those_of_the_pairs(clip: HookedCLIP, pairs: Pairs) -> None:
    got = list(stream(clip, pairs, RESIDUAL, forward_batch=4))
    assert [len(g) for g in got] == [4, 4, 3]
    assert sum((g.ids for g in got), ()) == pairs.ids
    image = torch.cat([g.image for g in got])
    text = torch.cat([g.text for g in got])
    eot = TinyTokenizer()(pairs.captions).argmax(1)
    torch.testing.assert_close(image, by_hand(clip, pairs, VISION)[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(text, by_hand(clip, pairs, TEXT)[torch.arange(11), eot], rtol=1e-5, atol=1e-5)


def test_final_embeddings_are_the_stock_models(clip: HookedCLIP, pairs: Pairs) -> None:
    got = torch.cat([g.image for g in stream(clip, pairs, sites_of("hook_projected", "image"))])
    stock = clip.model.encode_image(torch.stack([tiny_preprocess(p.image) for p in pairs]))
    torch.testing.assert_close(got, stock, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("token", ["mean", "all", "patches"])
def test_other_tokens_of_images(clip: HookedCLIP, pairs: Pairs, token: str) -> None:
    got = list(stream(clip, pairs, [VISION], token=token, forward_batch=4))
    whole = by_hand(clip, pairs, VISION)
    wanted = {"mean": whole.mean(1), "all": whole.flatten(0, 1), "patches": whole[:, 1:].flatten(0, 1)}[token]
    torch.testing.assert_close(torch.cat([g.image for g in got]), wanted, rtol=1e-5, atol=1e-5)
    assert sum((g.ids for g in got), ()) == tuple(np.repeat(pairs.ids, len(wanted) // 11))
    assert all(g.text is None for g in got)


@pytest.mark.parametrize("token", ["mean", "all"])
def test_padding_of_captions_is_left_out(clip: HookedCLIP, pairs: Pairs, token: str) -> None:
    got = list(stream(clip, pairs, [TEXT], token=token, forward_batch=4))
    whole, tokens = by_hand(clip, pairs, TEXT), TinyTokenizer()(pairs.captions)
    real = [w[: int((t != 0).sum())] for w, t in zip(whole, tokens, strict=True)]
    wanted = torch.cat(real) if token == "all" else torch.stack([r.mean(0) for r in real])
    torch.testing.assert_close(torch.cat([g.text for g in got]), wanted, rtol=1e-5, atol=1e-5)


def test_a_hook_without_class_token_gives_its_mean(clip: HookedCLIP, pairs: Pairs) -> None:
    patches = Site("vision", "hook_patch_embed")
    got = torch.cat([g.image for g in stream(clip, pairs, [patches])])
    torch.testing.assert_close(got, by_hand(clip, pairs, patches).mean(1), rtol=1e-5, atol=1e-5)


def test_a_bad_pair_leaves_both_sides_and_goes_to_the_quarantine(clip: HookedCLIP, tmp_path) -> None:
    pairs = files_of(noise_pairs(40), tmp_path)
    (tmp_path / "p3.png").write_bytes(b"no picture")
    (tmp_path / "p5.png").unlink()
    captions = [c if i != 20 else " " for i, c in enumerate(pairs.captions)]
    planted = Pairs(pairs.ids, [tmp_path / f"{i}.png" for i in pairs.ids], captions)
    held = Quarantine(tmp_path / "quarantine.jsonl", max_bad=0.1)
    got = list(stream(clip, planted, RESIDUAL, forward_batch=8, quarantine=held))
    kept = [i for i in range(40) if i not in (3, 5, 20)]
    assert sum((g.ids for g in got), ()) == tuple(f"p{i}" for i in kept)
    assert list(held.reasons) == ["p3", "p5", "p20"]
    good = list(stream(clip, pairs.take(kept), RESIDUAL, forward_batch=8))
    torch.testing.assert_close(torch.cat([g.text for g in got]), torch.cat([g.text for g in good]))
    with pytest.raises(PairsError, match=r"p3 \(unreadable image.*p5 \(missing file\)"):
        list(stream(clip, planted, RESIDUAL, forward_batch=8, quarantine=Quarantine(max_bad=0.01)))


def test_images_alone_need_no_captions_and_the_reverse(clip: HookedCLIP, pairs: Pairs) -> None:
    images = Pairs(pairs.ids, [p.image for p in pairs], None, name="images")
    captions = Pairs(pairs.ids, None, pairs.captions, name="captions")
    assert sum(len(g) for g in stream(clip, images, [VISION])) == 11
    assert sum(len(g) for g in stream(clip, captions, [TEXT])) == 11
    with pytest.raises(
        InputError, match=r"Expected pairs with captions, which text sites need, but found 'images' without"
    ):
        stream(clip, images, RESIDUAL)
    with pytest.raises(InputError, match=r"Expected pairs with images"):
        stream(clip, captions, RESIDUAL)


def test_cut_captions_are_counted(clip: HookedCLIP) -> None:
    image = Image.new("RGB", (32, 32))
    pairs = Pairs(["a", "b"], [image, image], ["short", "much too long for eight"])
    read = stream(clip, pairs, RESIDUAL)
    list(read)
    assert read.truncated == 1


def test_nan_names_site_batch_and_first_pair(clip: HookedCLIP, pairs: Pairs) -> None:
    broken = cliplens.wrap(tiny_model(), preprocess=lambda i: tiny_preprocess(i) / 0, tokenizer=TinyTokenizer())
    with pytest.raises(NonFiniteError, match=r"finite activations at vision.blocks.1.*batch 0, first in pair 'p0'"):
        next(stream(broken, pairs, RESIDUAL))


def test_wrong_options_are_errors(clip: HookedCLIP, pairs: Pairs) -> None:
    with pytest.raises(UnknownNameError, match="nearest: 'mean'"):
        stream(clip, pairs, RESIDUAL, token="meann")
    with pytest.raises(UnknownNameError, match="hook_resid_post"):
        stream(clip, pairs, [Site("vision", "blocks.1.hook_resid_pots")])
    with pytest.raises(InputError, match="sites of the vision tower for token='patches'"):
        stream(clip, pairs, RESIDUAL, token="patches")
    with pytest.raises(InputError, match="one tower for token='all'"):
        stream(clip, pairs, RESIDUAL, token="all")
    with pytest.raises(InputError, match="at most one site per tower"):
        stream(clip, pairs, [VISION, Site("vision", "hook_embedding")])
    with pytest.raises(MismatchError, match="a hook with patch positions"):
        list(stream(clip, pairs, [Site("vision", "hook_embedding")], token="patches"))


def test_many_sites_come_from_one_pass(clip: HookedCLIP, pairs: Pairs) -> None:
    sites = (VISION, TEXT, Site("vision", "blocks.0.attn.hook_z"), Site("text", "hook_embedding"))
    reader = SiteReader(clip, sites)
    batch = reader.read(reader.decoder(pairs)[np.arange(5)])
    assert tuple(batch.sites) == sites
    assert [tuple(found.acts.shape) for found in batch.sites.values()] == [
        (5, 1, 64),
        (5, 1, 48),
        (5, 1, 64),
        (5, 1, 32),
    ]
    alone = SiteReader(clip, [VISION])
    one = alone.read(alone.decoder(pairs)[np.arange(5)]).sites[VISION]
    torch.testing.assert_close(batch.sites[VISION].acts, one.acts)


def test_worker_processes_give_the_same(clip: HookedCLIP, tmp_path) -> None:
    pairs = files_of(noise_pairs(9), tmp_path)
    here = list(stream(clip, pairs, RESIDUAL, forward_batch=2))
    there = list(stream(clip, pairs, RESIDUAL, forward_batch=2, workers=2))
    assert [g.ids for g in here] == [g.ids for g in there]
    assert all(torch.equal(a.image, b.image) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_number_that_is_not_finite_is_found_and_its_pair_named(value: float) -> None:
    acts = torch.zeros(4, 3, 5)
    finite(read_batch(acts), 7)
    acts[2, 1, 3] = value
    with pytest.raises(NonFiniteError, match=r"batch 7, first in pair 'p2'"):
        finite(read_batch(acts), 7)


def read_batch(acts: torch.Tensor) -> ReadBatch:
    """A batch of pairs p0, p1, ... with these activations at one site."""
    n = len(acts)
    decoded = Decoded(np.arange(n), np.arange(n), tuple(f"p{i}" for i in range(n)), None, None, ())
    return ReadBatch(decoded, {VISION: SiteActs(acts, torch.full((n,), acts.shape[1]), "patches")}, None, 0)


def test_the_end_token_is_found_where_it_is_not_the_largest_id() -> None:
    clip = cliplens.wrap(tiny_model(text={"pool_type": "eos", "eos_id": 5}))
    tokens = torch.tensor([[47, 9, 5, 0, 0, 0, 0, 0], [47, 11, 12, 13, 5, 0, 0, 0]])
    assert clip.towers["text"].special_position(tokens).tolist() == [2, 4]
    read = clip.towers["text"].read(tokens, ["blocks.2.hook_resid_post"])["blocks.2.hook_resid_post"]
    assert read.shape == (2, 8, 48)


def test_a_caption_reaches_to_its_last_token_or_to_the_one_that_is_read() -> None:
    """A token of id 0 may be the one that is read, or stand between others."""
    tokens = torch.tensor([[5, 0, 0, 0], [5, 6, 0, 0], [5, 0, 7, 0], [0, 0, 0, 0]])
    assert _lengths(tokens, torch.tensor([2, 0, 1, 0])).tolist() == [3, 2, 3, 1]
