"""The configuration decides the activation of a foreign dictionary: a grid of layouts and activations, and odd inputs.

Each layout is held against its formula, written out here, at every activation its tensors allow. Whatever else is put
beside the tensors must be refused in words: never opened as something else, never a raw traceback.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from cliplens.errors import CliplensError, DamagedError, InputError, MismatchError
from cliplens.sae import layouts, open_dictionary, open_foreign
from cliplens.sae.foreign.activation import Activation, configured_activation

D_IN, D_SAE, K, CUT = 10, 24, 3, 0.7
Tensors = dict[str, Any]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


E, B, D, PRE = draw(D_SAE, D_IN, seed=1), 0.3 * draw(D_SAE, seed=2), draw(D_SAE, D_IN, seed=3), draw(D_IN, seed=4)
X = draw(80, D_IN, seed=9) + 0.4
NORMS = D.norm(dim=1)


def topk(pre: Tensor) -> Tensor:
    found = pre.relu().topk(K, dim=1)
    return torch.zeros_like(pre).scatter(1, found.indices, found.values)


ACTS: dict[str, tuple[dict, Callable[[Tensor], Tensor]]] = {
    "relu": ({"activation": "relu"}, torch.relu),
    "topk": ({"activation": "topk", "k": K}, topk),
    "batchtopk": ({"activation": "batchtopk", "k": K, "threshold": CUT}, lambda p: p * (p > CUT)),
    "jumprelu": ({"activation": "jumprelu", "threshold": [CUT] * D_SAE}, lambda p: p * (p > CUT)),
}
# name -> (tensors, activations they allow, bias taken from the input, bias added to the output)
LAYOUTS: dict[str, tuple[Tensors, tuple[str, ...], Tensor | float, Tensor | float]] = {
    "visaebench": ({"encoder.weight": E, "encoder.bias": B, "decoder.weight": D}, tuple(ACTS), 0.0, 0.0),
    "overcomplete": (
        {
            "encoder.final_block.0.weight": E,
            "encoder.final_block.0.bias": B,
            "dictionary._weights": D,
            "dictionary.multiplier": torch.tensor(0.0),
        },
        tuple(ACTS),
        0.0,
        0.0,
    ),
    "openai": (
        {"encoder.weight": E, "latent_bias": B, "pre_bias": PRE, "decoder.weight": D.T},
        ("relu", "topk"),
        PRE,
        PRE,
    ),
    "sem": ({"encoder.weight": E, "encoder.bias": B, "bpre": PRE, "decoder.weight": D.T}, ("relu", "topk"), PRE, PRE),
    "sparsify": ({"encoder.weight": E, "encoder.bias": B, "W_dec": D, "b_dec": PRE}, ("topk",), PRE, PRE),
    "dictionary-learning": (
        {"encoder.weight": E, "encoder.bias": B, "decoder.bias": PRE, "decoder.weight": D.T},
        tuple(ACTS),
        0.0,
        PRE,
    ),
    "plain": ({"W_enc": E.T, "b_enc": B, "W_dec": D, "b_dec": PRE}, tuple(ACTS), PRE, PRE),
}
GRID = [(layout, activation) for layout, (_, allowed, _, _) in LAYOUTS.items() for activation in allowed]


def put(
    folder: Path, tensors: Tensors, config: Any = None, *, name: str = "sae.pt", beside: str = "config.json"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / name)
    else:
        torch.save(tensors, folder / name)
    if config is not None:
        (folder / beside).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.mark.parametrize(("layout", "activation"), GRID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["flat", "state_dict", "module.", "safetensors"])
def test_every_layout_at_every_activation(
    layout: str, activation: str, dtype: torch.dtype, form: str, tmp_path: Path
) -> None:
    tensors, _, taken, added = LAYOUTS[layout]
    config, act = ACTS[activation]
    saved: Tensors = {n: t.to(dtype) for n, t in tensors.items()}
    if form == "state_dict":
        saved = {"state_dict": saved, "step": 7}
    if form == "module.":
        saved = {f"module.{n}": t for n, t in saved.items()}
    put(tmp_path, saved, config, name="model.safetensors" if form == "safetensors" else "sae.pt")
    dictionary = open_dictionary(tmp_path)
    codes = act((X - taken) @ E.T + B)
    torch.testing.assert_close(dictionary.sae.encode(X), codes, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.sae(X), codes @ D + added, atol=2e-4, rtol=1e-5)
    assert dictionary.sae.cfg.metadata.converted_from == layout


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("word", ["softshrink", "tanh", "gelu", "abs", "sigmoid", "leaky_relu", "identity", "groupmax"])
def test_unknown_activations_are_refused(layout: str, word: str, tmp_path: Path) -> None:
    put(tmp_path, LAYOUTS[layout][0], {"activation": word, "k": K})
    with pytest.raises(InputError, match=word):
        open_dictionary(tmp_path)


@pytest.mark.parametrize("layout", ["visaebench", "overcomplete", "openai", "plain"])
def test_an_undefined_activation_is_an_error(layout: str, tmp_path: Path) -> None:
    put(tmp_path, LAYOUTS[layout][0])
    with pytest.raises(InputError, match="activation"):
        open_dictionary(tmp_path)


@pytest.mark.parametrize("layout", layouts())
def test_a_wrong_layout_is_refused(layout: str, tmp_path: Path) -> None:
    put(tmp_path, {"weights": torch.randn(3, 4)}, {"activation": "relu"})
    with pytest.raises(InputError):
        open_foreign(tmp_path, layout)


OVERCOMPLETE = LAYOUTS["overcomplete"][0]
LINEAR = {"encoder.weight": E, "encoder.bias": B, "decoder.weight": D.T, "bias": PRE}
PLAIN, NAMED = LAYOUTS["plain"][0], {"activation": "relu"}
ODD: list[tuple[str, Tensors, Any, type[Exception], str]] = [
    ("config is a list", PLAIN, [1, 2], InputError, "names and values.*found a list"),
    ("config is a number", PLAIN, 3, InputError, "names and values"),
    ("config is null", PLAIN, "null", InputError, "names and values"),
    ("config is cut", PLAIN, '{"activation": "re', DamagedError, "a configuration in .*config.json"),
    ("config is empty", PLAIN, "", DamagedError, "a configuration"),
    ("activation is a number", PLAIN, {"activation": 3}, InputError, "activation=3"),
    ("activation is a list", PLAIN, {"activation": ["topk"]}, InputError, "activation="),
    ("two activations", PLAIN, {"activation": "relu", "activation_fn": "topk", "k": K}, InputError, "one activation"),
    ("class and activation", PLAIN, {"architecture": "jumprelu", "activation": "topk"}, InputError, "one activation"),
    ("unknown class", PLAIN, {"architecture": "crosscoder"}, InputError, "crosscoder"),
    ("topk without k", PLAIN, {"activation": "topk"}, InputError, "no k"),
    ("k without activation", LINEAR, {"k": K}, InputError, "k=3 without an activation"),
    ("k under trainer", LINEAR, {"trainer": {"k": K}}, InputError, "k=3 without an activation"),
    ("k is zero", PLAIN, {"activation": "topk", "k": 0}, InputError, "whole number of at least 1"),
    ("k is a fraction", PLAIN, {"activation": "topk", "k": 2.5}, InputError, "whole number"),
    ("k is a word", PLAIN, {"activation": "topk", "k": "many"}, InputError, "whole number"),
    ("k is true", PLAIN, {"activation": "topk", "k": True}, InputError, "whole number"),
    ("k above d_sae", PLAIN, {"activation": "topk", "k": D_SAE + 1}, InputError, f"k from 1 to {D_SAE}"),
    ("two ks", PLAIN, {"activation": "topk", "k": 2, "trainer": {"k": 3}}, InputError, "one number of latents"),
    ("batchtopk without threshold", PLAIN, {"activation": "batchtopk", "k": K}, InputError, "with its threshold"),
    ("jumprelu without threshold", PLAIN, {"activation": "jumprelu"}, InputError, "with its threshold"),
    ("threshold is a word", PLAIN, {"activation": "jumprelu", "threshold": "low"}, InputError, "as a number"),
    ("threshold is short", PLAIN, {"activation": "jumprelu", "threshold": [1.0]}, MismatchError, "threshold of shape"),
    ("gated without gates", PLAIN, {"architecture": "gated"}, InputError, "tensors of a gated dictionary"),
    ("d_sae of others", PLAIN, {**NAMED, "d_sae": 99}, MismatchError, "99 latents, as the configuration's d_sae"),
    ("d_in of others", PLAIN, {**NAMED, "input_dim": 99}, MismatchError, "99 inputs"),
    ("integers", {**PLAIN, "W_dec": D.long()}, NAMED, InputError, "floating-point"),
    ("booleans", {**PLAIN, "W_enc": E.T > 0}, NAMED, InputError, "floating-point"),
    ("nan", {**PLAIN, "W_dec": D / 0}, NAMED, InputError, "finite weights in W_dec"),
    ("inf", {**PLAIN, "b_enc": B / 0}, NAMED, InputError, "finite weights in b_enc"),
    ("transposed encoder", {**PLAIN, "W_enc": E}, NAMED, MismatchError, "W_enc of shape"),
    ("transposed decoder", {**PLAIN, "W_dec": D.T}, NAMED, MismatchError, "of shape"),
    ("both transposed", {**PLAIN, "W_enc": E, "W_dec": D.T}, NAMED, MismatchError, "of shape"),
    ("bias of another width", {**PLAIN, "b_enc": B[1:]}, NAMED, MismatchError, "b_enc of shape"),
    ("a bias missing", {n: t for n, t in PLAIN.items() if n != "b_enc"}, NAMED, InputError, "'b_enc'"),
    ("a decoder of one axis", {**PLAIN, "W_dec": D[0]}, NAMED, InputError, "decoder"),
    ("a decoder of three axes", {**PLAIN, "W_dec": D[None]}, NAMED, InputError, "decoder"),
    ("no latents", {"W_enc": E.T[:, :0], "b_enc": B[:0], "W_dec": D[:0], "b_dec": PRE}, NAMED, InputError, "decoder"),
    ("a word for a tensor", {**PLAIN, "W_enc": "here"}, NAMED, InputError, "W_enc"),
    ("no tensors", {}, NAMED, InputError, "a checkpoint of"),
    ("other tensors", {"a": E}, NAMED, InputError, "a checkpoint of.*with a"),
    ("a transcoder", {**LAYOUTS["sparsify"][0], "W_skip": torch.eye(D_IN)}, NAMED, InputError, "sparsify.*transcoder"),
    (
        "several layers",
        {**OVERCOMPLETE, "encoder.mlp_blocks.0.0.weight": E},
        NAMED,
        InputError,
        "one linear",
    ),
    (
        "a layer norm",
        {**OVERCOMPLETE, "encoder.final_block.1.weight": B},
        NAMED,
        InputError,
        "layer norm",
    ),
    ("gates and topk", {**LINEAR, "gate_bias": B, "mag_bias": B, "r_mag": B}, ACTS["topk"][0], InputError, "topk"),
    ("k of the file", {**LINEAR, "b_dec": PRE, "k": torch.tensor(5)}, ACTS["topk"][0], InputError, "k=5, as the file"),
    ("thresholds and topk", {**LAYOUTS["visaebench"][0], "thresholds": B.abs()}, ACTS["topk"][0], InputError, "topk"),
    ("trainer is a list", LINEAR, {"trainer": [1], "activation": "topk"}, InputError, "no k"),
]


@pytest.mark.parametrize(("tensors", "config", "error", "message"), [o[1:] for o in ODD], ids=[o[0] for o in ODD])
def test_unusual_inputs_are_errors_of_cliplens(
    tensors: Tensors, config: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    put(tmp_path, tensors, config)
    with pytest.raises(error, match=message):
        open_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("sae.safetensors", b"", DamagedError),
        ("sae.safetensors", b"\xff" * 40, DamagedError),
        ("sae.safetensors", (9).to_bytes(8, "little") + b'{"a": [1]}', DamagedError),
        ("sae.pt", b"", CliplensError),
        ("sae.pt", b"PK\x03\x04 cut", CliplensError),
        ("sae.pt", b'{"schema": 5', CliplensError),
        ("sae.pt", b"[1, 2]\n", CliplensError),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(name: str, content: bytes, error: type, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        open_dictionary(tmp_path)


def test_folders_without_one_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 0 in"):
        open_dictionary(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save(PLAIN, tmp_path / name)
    with pytest.raises(InputError, match=r"found 2 in .*a\.pt, b\.pt"):
        open_dictionary(tmp_path)


def test_files_beside_the_weights_are_no_second_checkpoint(tmp_path: Path) -> None:
    put(tmp_path, PLAIN, ACTS["topk"][0], name="n_images_9.pt")
    torch.save({"log_feature_sparsity": B}, tmp_path / "n_images_9_log_feature_sparsity.pt")
    assert open_dictionary(tmp_path).architecture == "topk"


def test_two_configurations_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    put(tmp_path, PLAIN, {"activation": "relu"})
    (tmp_path / "cfg.json").write_text(json.dumps({"activation": "topk", "k": K}))
    with pytest.raises(InputError, match=r"one configuration of .*activation="):
        open_dictionary(tmp_path)


def test_a_configuration_in_yaml_is_read(tmp_path: Path) -> None:
    put(tmp_path, PLAIN, f"activation: topk\nk: {K}\n", beside="config.yaml")
    assert open_dictionary(tmp_path).sae.cfg.k == K


def test_a_latent_without_a_decoder_row_stays_silent_and_finite(tmp_path: Path) -> None:
    put(tmp_path, {**LINEAR, "decoder.weight": torch.cat([D[:-1], torch.zeros(1, D_IN)]).T})
    sae = open_dictionary(tmp_path).sae
    assert torch.isfinite(sae(X)).all()
    assert not sae.encode(X)[:, -1].any()


@pytest.mark.parametrize(("config", "expected"), [({"input_dim": D_IN}, "visaebench"), ({}, "dictionary-learning")])
def test_a_square_dictionary_is_told_by_its_configuration_or_named(config: dict, expected: str, tmp_path: Path) -> None:
    state = {"encoder.weight": E[:D_IN], "encoder.bias": B[:D_IN], "decoder.weight": D[:D_IN], "decoder.bias": PRE}
    put(tmp_path, state, {**config, "activation": "relu"})
    codes = (X @ E[:D_IN].T + B[:D_IN]).relu()
    for layout, decoder in (("visaebench", D[:D_IN]), ("dictionary-learning", D[:D_IN].T)):
        torch.testing.assert_close(open_foreign(tmp_path, layout).sae(X), codes @ decoder + PRE, atol=1e-4, rtol=1e-5)
    assert open_foreign(tmp_path).sae.cfg.metadata.converted_from == expected


def test_openai_checkpoints_that_name_topk_normalise_their_input(tmp_path: Path) -> None:
    state = {**LAYOUTS["openai"][0], "activation": "TopK", "activation_state_dict": {"k": K}}
    put(tmp_path, state)
    mean = X.mean(-1, keepdim=True)
    spread = (X - mean).std(-1, keepdim=True) + 1e-5
    codes = topk(((X - mean) / spread - PRE) @ E.T + B)
    sae = open_dictionary(tmp_path).sae
    torch.testing.assert_close(sae.encode(X), codes, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), (codes @ D + PRE) * spread + mean, atol=2e-4, rtol=1e-4)


def test_overcomplete_thresholds_batch_norm_and_normalisation(tmp_path: Path) -> None:
    logs, scale, variance, mean = (
        draw(D_SAE, seed=5),
        draw(D_SAE, seed=6),
        draw(D_SAE, seed=7).abs(),
        draw(D_SAE, seed=8),
    )
    norm = {"weight": scale, "bias": B, "running_mean": mean, "running_var": variance}
    state = {**LAYOUTS["overcomplete"][0], "thresholds": logs}
    state |= {f"encoder.final_block.1.{n}": t for n, t in norm.items()}
    put(tmp_path, state, {"dictionary_params": {"normalization": "l2"}})
    pre = (X @ E.T + B - mean) / (variance + 1e-5).sqrt() * scale + B
    codes = pre.relu() * (pre > logs.exp())
    sae = open_dictionary(tmp_path).sae
    torch.testing.assert_close(sae.encode(X), codes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae(X), codes @ (D / NORMS[:, None]), atol=1e-3, rtol=1e-4)


WORDS = st.sampled_from(
    ["relu", "topk", "batchtopk", "jumprelu", "gated", "standard", "vanilla", "softmax", "TopK", ""]
)
KEYS = st.sampled_from(["activation", "activation_fn", "architecture", "sae_type", "k", "threshold", "trainer", "x"])
VALUES = st.one_of(
    WORDS, st.integers(-2, 9), st.floats(allow_nan=False), st.none(), st.booleans(), st.lists(st.integers())
)
CONFIGS = st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=4)


@given(CONFIGS)
@settings(max_examples=150, deadline=None)
def test_any_configuration_is_understood_or_refused_in_words(config: dict) -> None:
    try:
        found = configured_activation(config)
    except CliplensError:
        return
    assert isinstance(found, Activation)
    named = {str(v).casefold() for key, v in config.items() if key.startswith("activation") and isinstance(v, str)}
    if found.kind is not None and named and not {"architecture", "sae_type", "trainer"} & config.keys():
        assert found.kind in named


@given(config=CONFIGS, layout=st.sampled_from(sorted(LAYOUTS)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_beside_any_layout_opens_as_it_says_or_is_refused(
    config: dict, layout: str, tmp_path: Path
) -> None:
    put(tmp_path, LAYOUTS[layout][0], config)
    try:
        sae = open_dictionary(tmp_path).sae
    except CliplensError:
        return
    said = configured_activation(config)
    expected = {"relu": "standard", "batchtopk": "jumprelu"}.get(str(said.kind), said.kind)
    assert said.kind is None or sae.cfg.architecture() == expected
    if sae.cfg.architecture() == "topk":
        assert int((sae.encode(X) != 0).sum(1).max()) <= int(said.k or 0)
