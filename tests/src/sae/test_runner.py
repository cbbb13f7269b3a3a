"""SAELens' own runners on both towers: live, from a cache, several dictionaries at once; reloaded by stock SAELens."""

import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from sae_lens import SAE, LanguageModelSAETrainingRunner, MultiSAETrainingRunner
from sae_lens.load_model import load_model

import cliplens
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Pairs
from cliplens.sae import (
    dictionary_config,
    install,
    multi_runner_config,
    runner_config,
    uninstall,
    unused_dataset,
)
from cliplens.sites import Site
from cliplens.store import caption_dataset, harvest, image_dataset
from support.dictionaries import STOCK

TEXT, VISION = "text.blocks.1.hook_resid_post", "vision.blocks.1.hook_resid_post"
# SAELens says of every dataset that it has fewer rows than tokens are asked for, and of every epoch that it ends.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The training dataset contains fewer samples"),
    pytest.mark.filterwarnings("ignore:All samples in the training dataset have been exhausted"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    draw = torch.Generator().manual_seed(0)
    lines = ["image,caption"]
    for number in range(48):
        pixels = torch.randint(0, 255, (32, 32, 3), generator=draw, dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{chr(97 + number % 26)}{chr(97 + number // 3)} cat")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return cliplens.read_pairs(folder / "pairs.csv")


def asked(clip: HookedCLIP, site: str, architecture: str = "topk", **options: object):
    d_in = clip.width(Site.parse(site))
    sae = dictionary_config(architecture, d_in, 2 * d_in, k=4)
    given = {"training_tokens": 64 * 6, "train_batch_size_tokens": 64, "store_batch_size_prompts": 8}
    return runner_config(clip, site, sae, **{**given, **options})


def dataset(clip: HookedCLIP, pairs: Pairs, site: str):
    return (image_dataset if site.startswith("vision") else caption_dataset)(pairs, clip)


@pytest.mark.parametrize(
    ("architecture", "site", "steps"),
    [
        *((a, TEXT, 6) for a in STOCK),
        ("topk", VISION, 6),
        *(pytest.param(a, site, 300, marks=pytest.mark.slow) for a in STOCK for site in (TEXT, VISION)),
    ],
)
def test_the_stock_runner_trains_saves_and_reloads(
    architecture: str, site: str, steps: int, clip: HookedCLIP, pairs: Pairs, tmp_path: Path
) -> None:
    cfg = asked(clip, site, architecture, output_path=str(tmp_path), training_tokens=64 * steps)
    tower = clip.vision if site.startswith("vision") else clip.text
    data = dataset(clip, pairs, site)
    trained = LanguageModelSAETrainingRunner(cfg, override_model=tower, override_dataset=data).run()
    loaded = SAE.load_from_disk(tmp_path)
    inputs = torch.tensor(data[:4]["tokens"])
    acts = tower.run_with_cache(inputs, names_filter=[cfg.hook_name])[1][cfg.hook_name]
    assert loaded.encode(acts).shape == (*acts.shape[:2], 2 * acts.shape[2])
    assert torch.isfinite(loaded(acts)).all()
    spliced, stock = tower.run_with_saes(inputs, saes=[loaded]), tower(inputs)
    assert spliced.shape == stock.shape
    assert not torch.equal(spliced, stock)
    torch.testing.assert_close(tower.run_with_saes(inputs, saes=[loaded], use_error_term=True), stock)
    assert torch.equal(tower(inputs), stock)
    assert not torch.equal(trained.W_dec, torch.zeros_like(trained.W_dec))
    assert loaded.cfg.metadata.hook_name == Site.parse(site).hook
    assert loaded.cfg.metadata.cliplens["sites"] == [site]
    assert loaded.cfg.metadata.weights_sha256 == clip.identity.weights_sha256


@pytest.mark.parametrize(
    ("site", "options"),
    [
        (VISION, {"positions": "special"}),
        (VISION, {"positions": "patches"}),
        ("vision.hook_embedding", {}),
        ("text.hook_projected", {}),
        ("text.blocks.0.attn.hook_z", {}),
    ],
)
def test_other_positions_and_hooks(site: str, options: dict, clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    cfg = asked(clip, site, output_path=str(tmp_path), training_tokens=64 * 4, **options)
    tower = clip.vision if site.startswith("vision") else clip.text
    runner = LanguageModelSAETrainingRunner(cfg, override_model=tower, override_dataset=dataset(clip, pairs, site))
    rows = runner.activations_store.get_raw_llm_batch()[0]
    per_sample = {"special": 1, "patches": 4}.get(options.get("positions", ""), 1 if "blocks" not in site else 8)
    assert rows.shape == (8 * per_sample, clip.width(Site.parse(site)))
    runner.run()
    assert SAE.load_from_disk(tmp_path).cfg.reshape_activations == ("hook_z" if site.endswith("hook_z") else "none")


def test_from_a_cache_the_model_is_never_run(clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    cache = harvest(clip, pairs, [Site.parse(VISION)], tmp_path / "cache", token="all", dtype="float32")
    cfg = asked(clip, VISION, cache=cache, output_path=str(tmp_path / "sae"))
    handle = clip.vision.hook_dict["hook_embed"].register_forward_hook(_refuse)
    try:
        runner = LanguageModelSAETrainingRunner(cfg, override_model=clip.vision, override_dataset=unused_dataset(cfg))
        runner.run()
    finally:
        handle.remove()
    assert SAE.load_from_disk(tmp_path / "sae").cfg.metadata.token == "all"


def _refuse(*_: object) -> None:
    raise AssertionError("the model was run")


def test_several_dictionaries_of_one_tower_at_once(clip: HookedCLIP, pairs: Pairs) -> None:
    saes = {
        "early": ("text.blocks.0.hook_resid_post", dictionary_config("topk", 48, 96, k=4)),
        "late": ("text.blocks.2.hook_resid_post", dictionary_config("jumprelu", 48, 96, k=4)),
        "mlp": ("text.blocks.1.mlp.hook_post", dictionary_config("batchtopk", 192, 200, k=4)),
    }
    cfg = multi_runner_config(
        clip, saes, training_tokens=64 * 10, train_batch_size_tokens=64, store_batch_size_prompts=8
    )
    runner = MultiSAETrainingRunner(cfg, override_model=clip.text, override_dataset=caption_dataset(pairs, clip))
    trained = runner.run()
    assert set(trained) == set(saes)
    assert trained["mlp"].cfg.metadata.hook_name == "blocks.1.mlp.hook_post"
    assert trained["late"].cfg.metadata.cliplens["sites"] == ["text.blocks.2.hook_resid_post"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda clip: asked(clip, VISION, n_batches_in_buffer=10),
            InputError,
            r"n_batches_in_buffer of at least 13.*n_batches_in_buffer x 5 positions.*found n_batches_in_buffer=10",
        ),
        (
            lambda clip: runner_config(clip, VISION, dictionary_config("topk", 48)),
            MismatchError,
            rf"Expected d_in=64, the width of {VISION}, but found d_in=48 in the topk config",
        ),
        (lambda clip: asked(clip, TEXT, positions="special"), InputError, "positions='all' for text.blocks.1"),
        (lambda clip: asked(clip, "vision.hook_pooled", positions="patches"), InputError, "positions='all' for"),
        (
            lambda clip: multi_runner_config(
                clip, {"a": (TEXT, dictionary_config("topk", 48)), "b": (VISION, dictionary_config("topk", 64))}
            ),
            InputError,
            "sites of one tower with equally many rows",
        ),
        (
            lambda clip: multi_runner_config(
                clip,
                {"a": (TEXT, dictionary_config("topk", 48)), "b": ("text.hook_pooled", dictionary_config("topk", 48))},
            ),
            InputError,
            "pooled hooks and hooks with positions in separate runs",
        ),
    ],
)
def test_impossible_configs_are_errors_before_training(call, error: type, message: str, clip: HookedCLIP) -> None:
    with pytest.raises(error, match=message):
        call(clip)


def test_installed_loading_gives_towers_and_leaves_other_models_to_saelens(clip: HookedCLIP) -> None:
    loads = []

    def load(name: str, pretrained: str | None = None, **options: object) -> HookedCLIP:
        loads.append((name, pretrained))
        return clip

    import sae_lens.llm_sae_training_runner as module

    stock = module.load_model
    install(load)
    try:
        install(load)
        assert module.load_model("HookedCLIP.vision", "ViT-B-32@laion2b_s34b_b79k", device="cpu") is clip.vision
        by_kwargs = module.load_model("HookedCLIP", "world", model_from_pretrained_kwargs={"tower": "text"})
        assert by_kwargs is clip.text
        assert loads == [("ViT-B-32", "laion2b_s34b_b79k"), ("world", None)]
        with pytest.raises(ValueError, match="Unknown model class: Nobody"):
            module.load_model("Nobody", "x")
        with pytest.raises(UnknownNameError, match=r"name of a tower.*found 'visio'.*'vision'"):
            module.load_model("HookedCLIP.visio", "world")
    finally:
        uninstall()
    assert module.load_model is stock
    assert not hasattr(load_model, "stock")


def test_a_config_alone_is_enough_once_installed(clip: HookedCLIP, pairs: Pairs, tmp_path: Path) -> None:
    install(lambda name, pretrained=None, **_: clip)
    try:
        cfg = asked(clip, TEXT, output_path=str(tmp_path), training_tokens=64 * 2)
        LanguageModelSAETrainingRunner(cfg, override_dataset=caption_dataset(pairs, clip)).run()
    finally:
        uninstall()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # metadata that makes SAELens warn at every load would fail here
        SAE.load_from_disk(tmp_path)
