"""The provider: every row once an epoch, pairs together, and bit for bit the same after a pause."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import InputError, MismatchError
from cliplens.hooked import HookedCLIP
from cliplens.keys import held_out
from cliplens.records import PairedActs
from cliplens.sites import Site, sites_of
from cliplens.store import Cache, Provider, harvest, provider_of
from cliplens.store.sources import MemoryRows
from support.pictures import noise_pairs

EMBEDDING = sites_of("hook_embedding")


def numbered(n: int, d_in: int = 3) -> PairedActs:
    """Row i of images holds i, row i of captions holds -i - 1, in every dimension."""
    rows = torch.arange(n, dtype=torch.float32)[:, None].expand(n, d_in).clone()
    return PairedActs(tuple(f"p{i}" for i in range(n)), rows, -rows - 1)


def provider(n: int, batch: int, buffer: int | None, *, paired: bool = False, seed: int = 0) -> Provider:
    source = MemoryRows(numbered(n))
    return Provider(source, batch_size=batch, buffer_rows=buffer, paired=paired, seed=seed)


@pytest.fixture(scope="module")
def cache(clip: HookedCLIP, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("caches") / "cache"
    sites = [*EMBEDDING, Site("text", "blocks.1.hook_resid_post")]
    return harvest(clip, noise_pairs(150), sites, folder, dtype="float32", forward_batch=16, shard_pairs=48)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 60).map(lambda b: 2 * b), st.integers(1, 900), st.booleans(), st.integers(0, 3)
)
def test_every_row_once_an_epoch(n: int, batch: int, buffer: int, paired: bool, seed: int) -> None:
    give = provider(n, batch, buffer, paired=paired, seed=seed)
    given_rows = torch.cat([next(give)[:, 0] for _ in range(-(-6 * n // batch))])
    assert give.samples == len(given_rows)
    if paired:
        image, text = given_rows.view(-1, 2, batch // 2).transpose(0, 1).reshape(2, -1)
        assert torch.equal(text, -image - 1)
        epochs = [image[i : i + n] for i in range(0, 3 * n - n + 1, n)]
        wanted = torch.arange(n)
    else:
        epochs = [given_rows[i : i + 2 * n] for i in range(0, 6 * n - 2 * n + 1, 2 * n)]
        wanted = torch.arange(-n, n)
    assert all(torch.equal(e.sort().values.long(), wanted) for e in epochs)


def test_epochs_are_counted_and_differ() -> None:
    give = provider(100, 50, 60)
    epochs = []
    for number in range(3):
        epochs.append(torch.cat([next(give)[:, 0] for _ in range(4)]))
        assert (give.epoch, give.samples) == (number, 200 * (number + 1))
    assert not torch.equal(epochs[0], epochs[1])


def test_the_order_is_the_seeds() -> None:
    first, again, other = (provider(100, 32, 70, seed=s) for s in (1, 1, 2))
    same = [torch.equal(next(first), next(again)) for _ in range(20)]
    assert all(same)
    assert not torch.equal(next(again), next(other))


@pytest.mark.parametrize("buffer", [None, 37, 70, 128])
@pytest.mark.parametrize("paired", [True, False])
def test_a_resumed_provider_continues_bit_for_bit(buffer: int | None, paired: bool) -> None:
    whole = provider(100, 24, buffer, paired=paired)
    for steps in (0, 1, 7, 30):
        state = whole.state_dict()
        resumed = provider(100, 24, buffer, paired=paired)
        resumed.load_state_dict(state)
        coming = [next(resumed) for _ in range(12)]
        assert resumed.samples == state["samples"] + 12 * 24
        assert all(torch.equal(next(whole), c) for c in coming)
        for _ in range(steps):
            next(whole)


def test_a_state_of_another_provider_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"batch_size: 24 there, 32 here; seed: 0 there, 1 here"):
        provider(100, 32, 64, seed=1).load_state_dict(provider(100, 24, 64).state_dict())


def test_from_cache_centred_by_modality(cache: Cache) -> None:
    image, text = EMBEDDING
    keep = lambda keys: ~held_out(keys, 0.3)  # noqa: E731
    rows = list(cache.batches(image, text, keep=keep, batch_size=1000))
    assert len(rows) == 1
    give = Provider.from_cache(cache, image=image, text=text, keep=keep, batch_size=2 * len(rows[0]), paired=True)
    assert give.means is not None
    torch.testing.assert_close(give.means["image"], rows[0].image.mean(0))
    torch.testing.assert_close(give.means["text"], rows[0].text.mean(0))
    assert give.rows == 2 * len(rows[0])
    halves = next(give).view(2, len(rows[0]), -1)
    for half, raw, mean in zip(halves, (rows[0].image, rows[0].text), give.means.values(), strict=True):
        order = lambda x: x[x[:, 0].argsort()]  # noqa: E731
        torch.testing.assert_close(order(half), order(raw - mean))
    assert give.provenance is not None
    assert give.provenance.sites == ("vision.hook_embedding", "text.hook_embedding")
    assert give.provenance.centred


def test_windows_of_a_cache_have_the_same_rows_as_memory(cache: Cache) -> None:
    small = Provider.from_cache(cache, image=EMBEDDING[0], text=EMBEDDING[1], batch_size=100, buffer_rows=130)
    large = Provider.from_cache(cache, image=EMBEDDING[0], text=EMBEDDING[1], batch_size=100)
    a, b = (torch.cat([next(p) for _ in range(3)]) for p in (small, large))
    order = lambda x: x[x[:, 0].argsort()]  # noqa: E731
    torch.testing.assert_close(order(a), order(b))
    state = small.state_dict()
    coming = [next(small) for _ in range(8)]
    again = Provider.from_cache(cache, image=EMBEDDING[0], text=EMBEDDING[1], batch_size=100, buffer_rows=130)
    again.load_state_dict(state)
    assert all(torch.equal(c, next(again)) for c in coming)


@pytest.mark.parametrize("buffer", [None, 100])
def test_live_rows_are_the_models(clip: HookedCLIP, cache: Cache, buffer: int | None) -> None:
    live = provider_of(clip, noise_pairs(150), EMBEDDING, batch_size=100, buffer_rows=buffer, seed=3, forward_batch=16)
    cached = Provider.from_cache(cache, image=EMBEDDING[0], text=EMBEDDING[1], batch_size=100)
    order = lambda x: x[x[:, 0].argsort()]  # noqa: E731
    a, b = (torch.cat([next(p) for _ in range(3)]) for p in (live, cached))
    torch.testing.assert_close(order(a), order(b), rtol=1e-4, atol=1e-5)
    state, coming = live.state_dict(), [next(live) for _ in range(4)]
    again = provider_of(clip, noise_pairs(150), EMBEDDING, batch_size=100, buffer_rows=buffer, seed=3, forward_batch=16)
    again.load_state_dict(state)
    assert all(torch.equal(c, next(again)) for c in coming)


def test_one_tower_with_all_its_positions(clip: HookedCLIP) -> None:
    pairs = noise_pairs(20)
    give = provider_of(clip, pairs, sites_of("blocks.1.hook_resid_post", "image"), token="patches", batch_size=80)
    assert give.rows == 80
    assert next(give).shape == (80, 64)


def test_impossible_providers_are_errors(clip: HookedCLIP, cache: Cache) -> None:
    with pytest.raises(MismatchError, match=r"vision.blocks.1.hook_resid_post: 64, text.blocks.1.hook_resid_post: 48"):
        provider_of(clip, noise_pairs(5), sites_of("blocks.1.hook_resid_post"))
    with pytest.raises(MismatchError, match="sites of the same width"):
        Provider.from_cache(cache, image=EMBEDDING[0], text=Site("text", "blocks.1.hook_resid_post"))
    with pytest.raises(InputError, match="an even batch size for paired batches"):
        provider(10, 5, None, paired=True)
    with pytest.raises(InputError, match="Expected at least one row"):
        Provider.from_cache(cache, image=EMBEDDING[0], keep=lambda keys: keys < 0)


@pytest.mark.parametrize(("own", "told"), [(64, 512), (512, 64)])
def test_a_trainer_told_another_batch_size_is_refused(own: int, told: int) -> None:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    acts = PairedActs(tuple(map(str, range(300))), torch.randn(300, 8), torch.randn(300, 8))

    def fit(batch_size: int) -> None:
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=8, d_sae=16, k=2))
        config = SAETrainerConfig(2 * told, told, lr_end=0.0)
        SAETrainer(config, sae, Provider.from_acts(acts, batch_size=batch_size)).fit()

    with pytest.raises(MismatchError, match=f"train_batch_size_samples={own}, the provider's.*found .*={told}"):
        fit(own)
    fit(told)
