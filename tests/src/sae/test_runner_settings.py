"""The numbers in the configs for SAELens' runners: against those worked out by hand."""

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

import cliplens
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.sae import dictionary_config, multi_runner_config, runner_config, unused_dataset
from cliplens.sites import Site
from cliplens.store import Cache, harvest

TEXT, VISION = "text.blocks.1.hook_resid_post", "vision.blocks.1.hook_resid_post"
"""A caption has 8 positions, an image a class token and 4 patches."""


def asked(clip: HookedCLIP, site: Site | str, **options: Any) -> Any:
    d_in = clip.width(site if isinstance(site, Site) else Site.parse(site))
    return runner_config(clip, site, dictionary_config("topk", d_in, 2 * d_in, k=4), **options)


def several(clip: HookedCLIP, *sites: Site | str, **options: Any) -> Any:
    return multi_runner_config(clip, {str(s): (s, dictionary_config("topk", 48, k=4)) for s in sites}, **options)


@pytest.mark.parametrize("make", [asked, several])
def test_what_every_config_says_where_nothing_is_asked(make: Any, clip: HookedCLIP) -> None:
    cfg = make(clip, TEXT)
    assert (cfg.training_tokens, cfg.train_batch_size_tokens, cfg.lr) == (400_000, 1024, 3e-3)
    assert (cfg.context_size, cfg.seqpos_slice, cfg.n_batches_in_buffer) == (8, (None,), 512)  # 4 x 1024 rows, 8 each
    steps = 400_000 // 1024
    assert (cfg.lr_decay_steps, cfg.dead_feature_window, cfg.n_batches_for_norm_estimate) == (steps // 5, 48, 19)
    assert (cfg.prepend_bos, cfg.sequence_separator_token, cfg.dataset_trust_remote_code) == (False, None, False)
    assert (cfg.checkpoint_path, cfg.output_path) == (None, None)
    assert (cfg.logger.log_to_wandb, cfg.logger.wandb_project) == (False, "cliplens")
    assert (cfg.device, cfg.model_class_name) == ("cpu", "HookedCLIP.text")


@pytest.mark.parametrize("make", [asked, several])
@pytest.mark.parametrize(
    ("steps", "decay", "dead", "norms"),
    [
        (6, 1, 20, 10),
        (160, 32, 20, 10),
        (176, 35, 22, 10),
        (220, 44, 27, 11),
        (8008, 1601, 1000, 400),
        (20_000, 4000, 1000, 1000),
        (40_000, 8000, 1000, 1000),
    ],
)
def test_windows_and_decay_follow_the_steps_within_bounds(
    make: Any, steps: int, decay: int, dead: int, norms: int, clip: HookedCLIP
) -> None:
    cfg = make(clip, TEXT, training_tokens=64 * steps + 63, train_batch_size_tokens=64)
    found = (cfg.lr_decay_steps, cfg.dead_feature_window, cfg.n_batches_for_norm_estimate)
    assert found == (decay, dead, norms)


@pytest.mark.parametrize("make", [asked, several])
def test_the_threshold_of_batchtopk_gets_a_rate_for_its_steps(make: Any, clip: HookedCLIP) -> None:
    sae = dictionary_config("batchtopk", 48, k=4)
    given = {"training_tokens": 64 * 20, "train_batch_size_tokens": 64}
    if make is asked:
        prepared = runner_config(clip, TEXT, sae, **given).sae
    else:
        prepared = multi_runner_config(clip, {"a": (TEXT, sae)}, **given).saes["a"]
    assert prepared.topk_threshold_lr == pytest.approx(1 - 0.01 ** (5 / 20))
    assert prepared.device == "cpu"


@pytest.mark.parametrize("make", [asked, several])
def test_a_project_is_logged_to_and_options_win(make: Any, clip: HookedCLIP) -> None:
    cfg = make(clip, TEXT, wandb_project="mine", lr=1e-4, lr_decay_steps=7, n_batches_in_buffer=600)
    assert (cfg.logger.log_to_wandb, cfg.logger.wandb_project) == (True, "mine")
    assert (cfg.lr, cfg.lr_decay_steps, cfg.n_batches_in_buffer) == (1e-4, 7, 600)


@pytest.mark.parametrize(
    ("site", "options", "context", "part", "buffer"),
    [
        (VISION, {}, 5, (None,), 52),
        (VISION, {"positions": "special"}, 5, (0, 1), 256),
        (VISION, {"positions": "patches"}, 5, (1, None), 64),
        (TEXT, {"train_batch_size_tokens": 65}, 8, (None,), 33),
    ],
)
def test_the_buffer_holds_four_batches_of_the_rows_that_are_read(
    site: str, options: dict[str, Any], context: int, part: tuple[int | None, ...], buffer: int, clip: HookedCLIP
) -> None:
    cfg = asked(clip, site, **{"train_batch_size_tokens": 64, **options})
    assert (cfg.context_size, cfg.seqpos_slice, cfg.n_batches_in_buffer) == (context, part, buffer)


def test_sites_may_be_given_as_objects(clip: HookedCLIP) -> None:
    one, many = asked(clip, Site.parse(VISION)), several(clip, Site.parse(TEXT), "text.blocks.0.hook_resid_post")
    assert (one.hook_name, one.model_class_name) == ("blocks.1.hook_resid_post", "HookedCLIP.vision")
    assert (one.is_dataset_tokenized, one.verbose) == (True, False)
    assert list(many.hook_names.values()) == ["blocks.1.hook_resid_post", "blocks.0.hook_resid_post"]


@pytest.mark.parametrize(
    ("site", "positions", "token", "reshaped"),
    [
        (VISION, "all", "all", "none"),
        (VISION, "special", "cls", "none"),
        (VISION, "patches", "patches", "none"),
        ("vision.blocks.0.attn.hook_z", "all", "all", "hook_z"),
    ],
)
def test_the_origin_says_what_was_read(site: str, positions: Any, token: str, reshaped: str, clip: HookedCLIP) -> None:
    sae = asked(clip, site, positions=positions).sae
    assert sae.reshape_activations == reshaped
    assert sae.metadata.token == token
    origin = sae.metadata.cliplens
    assert (origin["sites"], origin["d_in"], origin["centred"]) == ([site], 64, False)


@pytest.mark.parametrize("site", [TEXT, "vision.hook_pooled", "vision.hook_embedding", "text.hook_projected"])
@pytest.mark.parametrize("positions", ["special", "patches"])
def test_positions_are_chosen_in_image_towers_only(site: str, positions: Any, clip: HookedCLIP) -> None:
    with pytest.raises(InputError, match=f"positions='all' for {site}, but found positions='{positions}'"):
        asked(clip, site, positions=positions)


@pytest.fixture(scope="module")
def cache(clip: HookedCLIP, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """32 images with all their positions."""
    folder = tmp_path_factory.mktemp("cached")
    for number in range(32):
        Image.new("RGB", (8, 8), (8 * number, 0, 0)).save(folder / f"{number}.png")
    (folder / "pairs.csv").write_text("image,caption\n" + "".join(f"{n}.png,cat\n" for n in range(32)))
    pairs = cliplens.read_pairs(folder / "pairs.csv")
    return harvest(clip, pairs, [Site.parse(VISION)], folder / "cache", token="cls")


def test_a_cache_is_read_in_place_of_the_model(cache: Cache, clip: HookedCLIP) -> None:
    cfg = asked(clip, VISION, cache=cache)
    assert cfg.use_cached_activations
    assert cfg.cached_activations_path == str(cache.folder_of(Site.parse(VISION)))
    assert (cfg.context_size, cfg.n_batches_in_buffer, cfg.sae.metadata.token) == (1, 4 * 1024, "cls")
    assert asked(clip, VISION, cache=cache, store_batch_size_prompts=32).store_batch_size_prompts == 32
    with pytest.raises(InputError, match="at least store_batch_size_prompts=33 pairs in the cache, but found 32"):
        asked(clip, VISION, cache=cache, store_batch_size_prompts=33)
    with pytest.raises(InputError, match="positions='all' for a cache"):
        asked(clip, VISION, cache=cache, positions="patches")


@pytest.mark.parametrize(("buffer", "fits"), [(8, True), (7, False)])
def test_a_buffer_must_hold_a_batch(buffer: int, fits: bool, clip: HookedCLIP) -> None:
    given = {"train_batch_size_tokens": 64, "n_batches_in_buffer": buffer}
    if fits:
        assert asked(clip, TEXT, **given).n_batches_in_buffer == buffer
    else:
        with pytest.raises(InputError, match=r"n_batches_in_buffer of at least 8: .* found n_batches_in_buffer=7"):
            asked(clip, TEXT, **given)


def test_one_tower_and_one_number_of_rows_at_a_time(clip: HookedCLIP) -> None:
    assert len(several(clip, TEXT, "text.blocks.0.hook_resid_post").saes) == 2
    for sites in ((), (TEXT, VISION), (TEXT, "text.hook_pooled")):
        found = ", ".join(sites) or "none"
        with pytest.raises(InputError, match=f"sites of one tower with equally .*, but found {found}"):
            several(clip, *sites)


def test_the_dataset_that_is_not_read_has_one_row_of_the_context(clip: HookedCLIP) -> None:
    assert unused_dataset(asked(clip, TEXT))["tokens"][:] == [[0] * 8]


@pytest.mark.parametrize(("tag", "name"), [(None, "tiny"), ("laion", "tiny@laion")])
def test_a_model_is_named_with_its_weights(
    tag: str | None, name: str, clip: HookedCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HookedCLIP, "identity", replace(clip.identity, name="tiny", pretrained=tag))
    assert asked(clip, TEXT).model_name == name
