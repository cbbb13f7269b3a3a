"""Numbers that training is started with, and checkpoints file by file."""

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from sae_lens.config import LoggingConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import save_file

from cliplens.errors import InputError, MismatchError
from cliplens.sae import dictionary_config, resume_point, train
from cliplens.sae.architectures.faster import FAST_FROM, faster
from cliplens.sae.checkpoint import load_state, remove_checkpoints, save_state
from cliplens.sae.configs import threshold_rate, with_metadata
from cliplens.sae.train import _batch_size, _logged, _prepared, _settings, own_randomness, use_fused_adam
from cliplens.sae.trainer_state import (
    TrainerCheckpoints,
    _generators,
    _restore_generators,
    _restore_scaler,
    _scaler_state,
)
from cliplens.sae.untrained import untrained_twin
from support.dictionaries import dictionary_of
from support.streams import Provider, paired, provenance

D_IN = 16


# --- configs


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("topk", {"k": 8}),
        ("batchtopk", {"k": 8}),
        ("standard", {"normalize_activations": "expected_average_only_in", "l1_coefficient": 2.0}),
        ("gated", {"normalize_activations": "expected_average_only_in", "l1_coefficient": 2.0}),
        (
            "jumprelu",
            {
                "normalize_activations": "expected_average_only_in",
                "jumprelu_init_threshold": 0.5,
                "jumprelu_bandwidth": 1.0,
                "jumprelu_ste_to_input": True,
                "jumprelu_sparsity_loss_mode": "quadratic",
                "target_l0": 8.0,
                "l0_coefficient": 1.0,
            },
        ),
        (
            "matching_pursuit",
            {"normalize_activations": "expected_average_only_in", "max_iterations": 8, "decoder_init_norm": 1.0},
        ),
        ("matryoshka_batchtopk", {"k": 8, "matryoshka_widths": [16, 64, 256]}),
    ],
)
@pytest.mark.filterwarnings("ignore:decoder_init_norm must be set")
def test_defaults_of_each_architecture(architecture: str, expected: dict[str, object]) -> None:
    config = dictionary_config(architecture, 64)
    assert {name: getattr(config, name) for name in expected} == expected
    stock = type(config)(d_in=64, d_sae=256, **({"k": 8} if "k" in expected else {}))  # SAELens' own defaults
    others = {k: v for k, v in vars(stock).items() if k not in {*expected, "metadata"}}
    assert {k: getattr(config, k) for k in others} == others


@pytest.mark.parametrize(("d_sae", "k"), [(4, 4), (64, 4), (128, 4), (160, 5), (1024, 32), (4096, 32)])
def test_the_default_k_is_a_32nd_of_the_latents_within_bounds(d_sae: int, k: int) -> None:
    assert dictionary_config("topk", 8, d_sae).k == k


def test_the_smallest_sizes_are_allowed() -> None:
    for k in (1, 16):
        assert dictionary_config("topk", 1, 16, k=k).k == k
    assert dictionary_config("topk", 1, 1, k=1).d_sae == 1
    assert dictionary_config("matryoshka_batchtopk", 8, 12, k=2).matryoshka_widths == [3, 12]
    assert dictionary_config("jumprelu", 128).l0_coefficient == 2.0
    assert dictionary_config("standard", 16).l1_coefficient == 1.0


@pytest.mark.parametrize(
    ("steps", "rate"), [(0, 1 - 1e-10), (1, 1 - 1e-10), (10, 0.9), (500, 1 - 0.01**0.01), (10**6, 0.01)]
)
def test_the_threshold_of_batchtopk_is_a_mean_of_the_last_fifth_of_the_steps(steps: int, rate: float) -> None:
    config = dictionary_config("batchtopk", 8)
    assert config.topk_threshold_lr == 0.01
    assert threshold_rate(config, steps) == pytest.approx({"topk_threshold_lr": rate})
    assert threshold_rate(dictionary_config("topk", 8), steps) == {}


def test_a_copy_of_a_config_has_metadata_of_its_own() -> None:
    config = dictionary_config("topk", 8)
    config.metadata.hook_name = "a"
    copy = with_metadata(config, k=3)
    copy.metadata.hook_name = "b"
    assert (copy.k, copy.d_in, config.metadata.hook_name, config.k) == (3, 8, "a", 4)


# --- settings


@pytest.mark.parametrize(
    ("steps", "decay", "dead", "sampled", "norms"),
    [
        (1, 0, 20, 1, 10),
        (160, 32, 20, 160, 10),
        (200, 40, 25, 200, 10),
        (400, 80, 50, 400, 20),
        (8000, 1600, 1000, 2000, 400),
        (40000, 8000, 1000, 2000, 1000),
    ],
)
def test_schedules_follow_the_number_of_steps(steps: int, decay: int, dead: int, sampled: int, norms: int) -> None:
    made = _settings(steps, 32, 1e-3, "cpu", LoggingConfig(log_to_wandb=False))
    assert (made.total_training_samples, made.train_batch_size_samples) == (32 * steps, 32)
    assert (made.lr, made.lr_end, made.lr_decay_steps) == (1e-3, 1e-3, decay)
    assert (made.dead_feature_window, made.feature_sampling_window) == (dead, sampled)
    assert made.n_batches_for_norm_estimate == norms
    assert (made.device, made.logger.log_to_wandb) == ("cpu", False)
    other = _settings(steps, 32, 1e-3, "cpu", LoggingConfig(log_to_wandb=False), lr_end=0.5, lr_warm_up_steps=3)
    assert (other.lr_end, other.lr_warm_up_steps) == (0.5, 3)


def test_the_batch_size_is_the_providers_or_else_the_one_asked_for() -> None:
    assert _batch_size(object(), None) == 1024
    assert _batch_size(object(), 7) == 7
    assert _batch_size(SimpleNamespace(batch_size=64), None) == 64
    assert _batch_size(SimpleNamespace(batch_size=64), 64) == 64
    with pytest.raises(MismatchError, match="batch_size, 64, but found batch_size=63"):
        _batch_size(SimpleNamespace(batch_size=64), 63)


def test_a_single_batch_is_enough_to_train() -> None:
    made = train(dictionary_config("topk", D_IN, k=4), Provider(paired(100, D_IN), 64), samples=127)
    assert made.d_sae == 4 * D_IN
    assert made.sae.cfg.metadata.training_architecture == "topk"


@pytest.mark.parametrize(
    ("d_sae", "options", "fast"),
    [
        (FAST_FROM, {}, True),
        (FAST_FROM - 1, {}, False),
        (FAST_FROM, {"fast": False}, False),
        (48, {"fast": True}, True),
        (FAST_FROM, {"autocast": True}, False),
    ],
)
def test_the_sparse_step_is_chosen_from_1024_latents_on(d_sae: int, options: dict[str, Any], fast: bool) -> None:
    config = dictionary_config("topk", D_IN, d_sae, k=4)
    made = train(config, Provider(paired(100, D_IN), 64), samples=64, **options)
    assert made.sae.cfg.metadata.training_architecture == ("fast_topk" if fast else "topk")


def test_a_sparse_step_keeps_every_field_of_the_config() -> None:
    config = dictionary_config("matryoshka_batchtopk", 8, 64, k=5, aux_loss_coefficient=0.3, decoder_init_norm=0.2)
    quick = faster(config)
    assert quick.architecture() == "fast_matryoshka_batchtopk"
    assert {k: v for k, v in vars(quick).items() if k != "metadata"} == {
        k: v for k, v in vars(config).items() if k != "metadata"
    }
    standard = dictionary_config("standard", 8)
    assert faster(standard) is standard


def test_head_outputs_are_reshaped_and_other_hooks_not() -> None:
    for hook, expected in (("blocks.0.attn.hook_z", "hook_z"), ("hook_embedding", "none")):
        made = _prepared(dictionary_config("topk", D_IN), 10, "cpu", provenance(D_IN, hook=hook))
        assert made.reshape_activations == expected
        assert made.device == "cpu"
        assert made.metadata.hook_name == hook
    elsewhere = _prepared(dictionary_config("topk", D_IN), 10, "meta", None)
    assert (elsewhere.metadata.hook_name, elsewhere.device) == (None, "meta")


def test_a_fused_adam_is_fused_alone() -> None:
    sae = get_sae_training_class("topk")[0](dictionary_config("topk", D_IN, k=4))
    made = _settings(10, 64, 1e-3, "cpu", LoggingConfig(log_to_wandb=False))
    trainer = SAETrainer(made, sae, Provider(paired(100, D_IN), 64))
    use_fused_adam(trainer)
    assert [(g["fused"], g["foreach"]) for g in trainer.optimizer.param_groups] == [(True, False)]


def test_weights_and_biases_is_asked_only_with_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []
    fake = ModuleType("wandb")
    fake.init = lambda **told: begun.append(told)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with _logged(None, {"lr": 1}) as logger:
        assert logger.log_to_wandb is False
    assert begun == []
    with _logged("mine", {"lr": 1}) as logger:
        assert (logger.log_to_wandb, logger.wandb_project, logger.log_weights_to_wandb) == (True, "mine", False)
    assert begun == [{"project": "mine", "config": {"lr": 1}}]


def test_the_global_generator_continues_where_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    first = [torch.rand(1).item()]
    with own_randomness(9, "cpu"):
        inside = torch.rand(1)
    torch.manual_seed(9)
    assert torch.equal(inside, torch.rand(1))
    torch.manual_seed(3)
    torch.rand(1)
    with own_randomness(9, "cpu"):
        torch.rand(5)
    assert [*first, torch.rand(1).item()] == expected


def test_generators_and_scalers_come_back() -> None:
    state = _generators("cpu")
    assert state["cuda"] is None
    before = torch.rand(3)
    _restore_generators(state, "cpu")
    assert torch.equal(torch.rand(3), before)
    whitening = SimpleNamespace(mean=torch.ones(2), matrix=torch.eye(2), inverse_matrix=2 * torch.eye(2))
    for given in (None, whitening):
        told = _scaler_state(SimpleNamespace(scaling_factor=2.5, whitening=given))
        into = SimpleNamespace(scaling_factor=None, whitening=whitening)
        _restore_scaler(into, told)
        assert into.scaling_factor == 2.5
        assert (into.whitening is None) == (given is None)
        if given is not None:
            assert torch.equal(into.whitening.inverse_matrix, 2 * torch.eye(2))


# --- checkpoints


def test_checkpoints_are_spread_evenly_and_those_done_are_not_made_again(tmp_path: Path) -> None:
    def trainer() -> Any:
        return SimpleNamespace(
            cfg=SimpleNamespace(total_training_samples=1000, device="cpu"),
            sae=torch.nn.Linear(2, 2),
            optimizer=SimpleNamespace(state_dict=dict, load_state_dict=lambda s: None),
            lr_scheduler=SimpleNamespace(state_dict=dict, load_state_dict=lambda s: None),
            coefficient_schedulers={},
            activation_scaler=SimpleNamespace(scaling_factor=None, whitening=None),
            n_training_samples=400,
            n_training_steps=4,
            act_freq_scores=torch.zeros(2),
            n_forward_passes_since_fired=torch.zeros(2),
            n_frac_active_samples=0,
            started_fine_tuning=False,
        )

    data = Provider(paired(20, 2), 8)
    made = TrainerCheckpoints.of(trainer(), data, {"a": 1}, tmp_path, 4)
    assert made is not None
    assert made.trainer.checkpoint_thresholds == [200, 400, 600, 800]
    assert made.trainer.save_checkpoint_fn is made
    made(None)
    assert resume_point(tmp_path) == 400
    again = TrainerCheckpoints.of(trainer(), data, {"a": 1}, tmp_path, 4)
    assert again is not None
    again.trainer.n_training_samples = 0
    again.resume()
    assert (again.trainer.n_training_samples, again.trainer.n_training_steps) == (400, 5)
    assert again.trainer.checkpoint_thresholds == [400, 600, 800]
    assert TrainerCheckpoints.of(trainer(), data, {}, None, 4) is None


def test_a_provider_without_a_state_makes_no_checkpoints_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = iter(lambda: torch.randn(32, D_IN), None)
    train(dictionary_config("topk", D_IN, k=4), rows, samples=320, batch_size=32, checkpoint_folder=tmp_path / "c")
    assert "the provider has no state_dict: no checkpoints" in caplog.text
    assert not (tmp_path / "c").exists()


def test_checkpoints_stay_where_they_are_asked_to(tmp_path: Path) -> None:
    data = Provider(paired(100, D_IN), 64)
    how: dict[str, Any] = {"samples": 640, "checkpoint_folder": tmp_path, "keep_checkpoints": True}
    train(dictionary_config("topk", D_IN, k=4), data, n_checkpoints=2, **how)
    assert [p.name for p in tmp_path.iterdir()] == ["training-000000000448.safetensors"]
    remove_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


STATE = {
    "a": torch.arange(6.0).reshape(2, 3),
    "nested": {"list": [1, 2.5, None, "x"], "tuple": (torch.tensor([True]), ()), 3: "a key that is no string"},
    "empty": torch.zeros(0, 2),
    "strided": torch.arange(6).reshape(2, 3).T,
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save_state(tmp_path, 7, STATE, {"lr": 1e-3, "path": Path("x")})
    assert [p.name for p in tmp_path.iterdir()] == ["training-000000000007.safetensors"]
    found = load_state(tmp_path, {"path": Path("x"), "lr": 1e-3})
    assert found is not None
    assert list(found) == list(STATE)
    assert torch.equal(found["a"], STATE["a"])
    assert torch.equal(found["strided"], STATE["strided"])
    assert found["empty"].shape == (0, 2)
    nested = found["nested"]
    assert nested["list"] == [1, 2.5, None, "x"]
    assert isinstance(nested["tuple"], tuple)
    assert (nested["tuple"][0].tolist(), nested["tuple"][1], nested[3]) == ([True], (), "a key that is no string")


def test_the_newest_intact_checkpoint_counts_and_older_ones_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, 5, {"n": 5}, {})
    (tmp_path / "training-x.safetensors").write_bytes(b"no number")
    (tmp_path / "training-000000000020.safetensors").write_bytes(b"later, and damaged")
    save_state(tmp_path, 10, {"n": 10}, {})
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == [
        "training-000000000010.safetensors",
        "training-000000000020.safetensors",
        "training-x.safetensors",
    ]
    with caplog.at_level(logging.WARNING):
        assert load_state(tmp_path, {}) == {"n": 10}
    assert caplog.text.count("is damaged and skipped") == 1
    assert resume_point(tmp_path) == 10
    (tmp_path / "training-000000000010.safetensors").unlink()
    assert load_state(tmp_path, {}) is None
    assert resume_point(tmp_path) == 0


def test_a_state_without_a_hash_opens_and_one_with_a_wrong_hash_does_not(tmp_path: Path) -> None:
    def put(**more: str) -> None:
        header = {"state": json.dumps({"dict": [["t", {"tensor": "/t"}]]}), "asked": "{}", **more}
        save_file({"/t": torch.ones(2)}, tmp_path / "training-000000000003.safetensors", metadata=header)

    put()
    found = load_state(tmp_path, {})
    assert found is not None
    assert found["t"].tolist() == [1.0, 1.0]
    put(sha256="0" * 64)
    assert load_state(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"lr": 2, "seed": 0}, "with lr=1, but found lr=2"),
        ({"lr": 1}, "with seed=0, but found seed=None"),
        ({"lr": 1, "seed": 0, "b": 4}, "with b=None, but found b=4"),
    ],
)
def test_options_that_differ_are_named(now: dict[str, int], message: str, tmp_path: Path) -> None:
    save_state(tmp_path, 5, {"n": 5}, {"lr": 1, "seed": 0})
    with pytest.raises(MismatchError, match=message):
        load_state(tmp_path, now)


# --- an untrained dictionary


def test_an_untrained_twin_has_the_shape_the_means_and_random_unit_rows() -> None:
    dictionary = dictionary_of("topk")
    twin = untrained_twin(dictionary, 5, seed=4)
    assert (twin.d_in, twin.d_sae, twin.architecture, twin.sae.cfg.k) == (24, 60, "topk", 5)
    assert twin.means is not None
    assert torch.equal(twin.means["image"], dictionary.means["image"])
    assert twin.provenance == dictionary.provenance
    rows = torch.randn(60, 24, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(twin.decoder, rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(twin.sae.W_enc, twin.sae.W_dec.T)
    assert not twin.sae.b_enc.any()
    assert not twin.sae.b_dec.any()
    assert not any(p.requires_grad for p in twin.sae.parameters())
    assert untrained_twin(dictionary, 100).sae.cfg.k == 60
    assert not torch.equal(untrained_twin(dictionary, 5).decoder, twin.decoder)
    x = paired(10, 24)
    assert (twin.encode(x).image.dense() > 0).sum(1).max() <= 5


def test_too_few_samples_for_one_batch_are_named() -> None:
    with pytest.raises(InputError, match="at least one batch of 64 samples, but found samples=63"):
        train(dictionary_config("topk", D_IN, k=4), Provider(paired(100, D_IN), 64), samples=63)
