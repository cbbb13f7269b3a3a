"""Nothing that a checkpoint says or holds is left out in silence: normalisations, tensors, configurations, shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from cliplens.errors import CliplensError, DamagedError, InputError, UnsafeFileError
from cliplens.sae import Dictionary, open_dictionary
from cliplens.sae.foreign.leftovers import _neutral
from support.dictionaries import D_IN as SAE_IN
from support.dictionaries import sae_of

D_IN, D_SAE, K = 6, 11, 3
TINY = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SHAPES = ((D_SAE, D_IN), (D_SAE,), (D_SAE, D_IN), (D_IN,), (30, D_IN))
E, B, D, PRE, X = (draw(*shape, seed=seed) for seed, shape in enumerate(SHAPES))
PLAIN = {"W_enc": E.T, "b_enc": B, "W_dec": D, "b_dec": PRE}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "visaebench": {"encoder.weight": E, "encoder.bias": B, "decoder.weight": D},
    "openai": {"encoder.weight": E, "latent_bias": B, "pre_bias": PRE, "decoder.weight": D.T},
    "sparsify": {"encoder.weight": E, "encoder.bias": B, "W_dec": D, "b_dec": PRE},
    "dictionary-learning": {
        "encoder.weight": E,
        "encoder.bias": B,
        "decoder.weight": D.T,
        "b_dec": PRE,
        "k": torch.tensor(K),
    },
    "overcomplete": {
        "encoder.final_block.0.weight": E,
        "encoder.final_block.0.bias": B,
        "dictionary._weights": D,
        "dictionary.multiplier": torch.tensor(0.0),
    },
}
TOPK = {"activation": "topk", "k": K}
CODES = ((X - PRE) @ E.T + B).relu()
NORMALISATIONS = [
    ("normalize_activations", "expected_average_only_in"),
    ("normalize_inputs", True),
    ("input_norm", "l2"),
    ("norm_activation", "dataset-wise"),
    ("scaling_factor", 2.0),
    ("scale", 0.5),
    ("mean", [0.1] * D_IN),
    ("standardize", True),
    ("whiten", True),
    ("rescale_acts_by_decoder_norm", True),
    ("sparsity_include_decoder_norm", True),
]
NEUTRAL = [("normalize_activations", "none"), ("normalize_inputs", False), ("scale", 1.0), ("mean", None), ("std", [])]
HARMLESS = ["stats_last_nonzero", "n_forward_passes_since_fired", "act_freq_ema", "training.step", "act_sparsity"]


def put(folder: Path, tensors: dict[str, Any], config: Any = None, beside: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / "sae.pt")
    if config is not None:
        (folder / beside).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@TINY
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    entry=st.sampled_from(NORMALISATIONS),
    section=st.sampled_from(["", "trainer", "cfg", "model"]),
)
def test_a_normalisation_nobody_applies_is_refused(
    layout: str, entry: tuple[str, Any], section: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = dict([entry])
    folder = put(tmp_path_factory.mktemp("sae"), LAYOUTS[layout], {**TOPK, **({section: said} if section else said)})
    with pytest.raises(InputError, match=entry[0]):
        open_dictionary(folder)


@TINY
@given(layout=st.sampled_from(sorted(LAYOUTS)), entry=st.sampled_from(NEUTRAL), harmless=st.sampled_from(HARMLESS))
def test_neutral_entries_and_counters_are_no_obstacle(
    layout: str, entry: tuple[str, Any], harmless: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = {**LAYOUTS[layout], harmless: draw(D_SAE, seed=7)}
    folder = put(tmp_path_factory.mktemp("sae"), state, {**TOPK, **dict([entry])})
    assert open_dictionary(folder).sae.cfg.k == K


@TINY
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    name=st.sampled_from(["log_scale", "W_skip", "scale", "mean", "gain", "b_dec_out", "decoder2.weight", "whitening"]),
    where=st.sampled_from(["inside", "prefixed"]),
)
def test_a_tensor_nobody_reads_is_refused(
    layout: str, name: str, where: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = {**LAYOUTS[layout], name: draw(D_IN, seed=8)}
    if where == "prefixed":
        state = {f"module.{n}": tensor for n, tensor in state.items()}
    with pytest.raises(InputError, match=name if name != "W_skip" else "skip"):
        open_dictionary(put(tmp_path_factory.mktemp("sae"), state, TOPK))


def test_statistics_of_the_data_beside_the_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'mean'"):
        open_dictionary(put(tmp_path, {"state_dict": PLAIN, "mean": PRE, "epoch": 3}, TOPK))


@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_normalisations_saelens_has_are_applied(norm: str, tmp_path: Path) -> None:
    sae = open_dictionary(put(tmp_path, PLAIN, {"activation": "relu", "normalize_activations": norm})).sae
    if norm == "layer_norm":
        centred = X - X.mean(-1, keepdim=True)
        read = centred / (centred.std(-1, keepdim=True) + 1e-5)
    else:
        read = X * D_IN**0.5 / X.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(sae.encode(X), ((read - PRE) @ E.T + B).relu(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("within", ["model", "sae_config", "args.sae"])
def test_an_activation_in_any_section_decides(within: str, tmp_path: Path) -> None:
    said: dict[str, Any] = dict(TOPK)
    for name in reversed(within.split(".")):
        said = {name: said}
    put(tmp_path, LAYOUTS["plain"], {**said, "vision": {"activation": "gelu", "k": 7}})
    assert open_dictionary(tmp_path, "plain").sae.cfg.k == K


@pytest.mark.parametrize("name", ["hyperparams.json", "sae_config.json", "settings.yaml", "sae_cfg.json"])
def test_a_configuration_under_another_name_decides(name: str, tmp_path: Path) -> None:
    said = f"act_fn: topk\ntop_k: {K}\n" if name.endswith("yaml") else {"act_fn": "topk", "top_k": K}
    put(tmp_path, LAYOUTS["visaebench"], said, beside=name)
    (tmp_path / "notes.json").write_text("[1, 2]")
    assert open_dictionary(tmp_path).sae.cfg.k == K


def test_llama_scope_is_refused_for_its_normalisation(tmp_path: Path) -> None:
    state = {"encoder.weight": E, "encoder.bias": B, "decoder.weight": D.T, "decoder.bias": PRE}
    said = {"act_fn": "jumprelu", "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise"}
    put(tmp_path, state, said, beside="hyperparams.json")
    with pytest.raises(InputError, match="norm_activation='dataset-wise'"):
        open_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ('{"activation": "relu", "activation": "topk", "k": 3}', DamagedError, "'activation' given twice"),
        ('\ufeff{"activation": "topk", "k": 3}', None, ""),
    ],
)
def test_json_as_editors_leave_it(config: str, error: type[Exception] | None, words: str, tmp_path: Path) -> None:
    put(tmp_path, PLAIN, config)
    if error is None:
        assert open_dictionary(tmp_path).sae.cfg.k == K
        return
    with pytest.raises(error, match=words):
        open_dictionary(tmp_path)


def test_numpy_archives_and_shards_open(tmp_path: Path) -> None:
    threshold = B.abs()
    pre = X @ E.T + B
    arrays = {name: tensor.numpy() for name, tensor in {**PLAIN, "threshold": threshold}.items()}
    np.savez(tmp_path / "params.npz", **arrays)
    codes = open_dictionary(tmp_path).sae.encode(X)
    torch.testing.assert_close(codes, pre * (pre > threshold), atol=2e-5, rtol=1e-5)
    (tmp_path / "params.npz").unlink()
    shards = {"a-1.safetensors": ("W_enc", "b_enc"), "a-2.safetensors": ("W_dec", "b_dec")}
    for shard, names in shards.items():
        save_file({name: PLAIN[name].contiguous() for name in names}, tmp_path / shard)
    listed = {name: shard for shard, names in shards.items() for name in names}
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    (tmp_path / "config.json").write_text('{"activation": "relu"}')
    torch.testing.assert_close(open_dictionary(tmp_path).sae.encode(X), CODES, atol=2e-5, rtol=1e-5)
    (tmp_path / "a-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"no a-2\.safetensors"):
        open_dictionary(tmp_path)


def test_files_that_hold_no_dictionary_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", D.numpy())
    with pytest.raises(InputError, match="one array without a name"):
        open_dictionary(tmp_path / "codes.npy")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UnsafeFileError, match=r"an object of torch\.nn\.modules\.linear\.Linear"):
        open_dictionary(tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"for example .*layers\.0"):
        open_dictionary(put(tmp_path / "all" / "layers.0", PLAIN, TOPK).parent)


@pytest.mark.parametrize(
    ("layout", "config", "words"),
    [
        ("sparsify", {"k": K, "signed": True}, "signed"),
        ("plain", {"schema": 99, "cfg": {"d_model": D_IN}}, "schema 99 without an activation"),
        ("plain", {"schema": 2, "config": {"activation": "topk"}}, "schema 2 without `cfg`"),
    ],
)
def test_what_a_layout_says_in_words_of_its_own_is_not_overheard(
    layout: str, config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        open_dictionary(put(tmp_path, LAYOUTS[layout], config))


def test_openai_says_what_stands_behind_its_topk(tmp_path: Path) -> None:
    saved = {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "Identity"}}
    with pytest.raises(InputError, match="Identity behind the TopK"):
        open_dictionary(put(tmp_path, {**LAYOUTS["openai"], **saved}))


@pytest.mark.parametrize("norm", ["expected_average_only_in", "covariance_whitening"])
def test_a_scaling_saelens_keeps_outside_is_folded_or_asked_for(norm: str, tmp_path: Path) -> None:
    sae = sae_of("standard", normalise=norm)
    sae.save_model(tmp_path)
    with pytest.raises(InputError, match=f"normalize_activations='{norm}'"):
        Dictionary.load(tmp_path)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 2.5, "has_whitening": false}')
    x = draw(20, SAE_IN, seed=5)
    opened = Dictionary.load(tmp_path).sae
    with torch.no_grad():
        torch.testing.assert_close(opened.encode(x), sae.encode(2.5 * x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(opened(x), sae(2.5 * x) / 2.5, atol=1e-5, rtol=1e-5)
    (tmp_path / "activation_scaler.json").write_text("{")
    with pytest.raises(CliplensError, match="the scaling of activations"):
        Dictionary.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "neutral"),
    [
        ("normalize", 0, True),
        ("normalize", 1, False),
        ("normalize", False, True),
        ("normalize", True, False),
        ("norm_factor", 1.0, True),
        ("norm_factor", 0.0, True),
        ("norm_factor", 2.0, False),
        ("normalize", "None", True),
        ("normalize", "layer_norm", False),
        ("norms", [0, 0], True),
        ("norms", [0, 3], False),
        ("norm", None, True),
    ],
)
def test_what_changes_nothing_is_told_from_what_does(name: str, value: Any, neutral: bool) -> None:
    assert _neutral(name, value) == neutral
