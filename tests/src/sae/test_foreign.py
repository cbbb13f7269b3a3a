"""Dictionaries made elsewhere: state dicts of each layout made here, against the arithmetic their authors document."""

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cliplens.errors import DamagedError, InputError, UnknownNameError, UnsafeFileError
from cliplens.sae import Dictionary, layouts, open_dictionary, open_foreign

D_IN, D_SAE, K, ROWS = 12, 40, 5, 60
Codes = tuple[Tensor, Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flat() -> dict[str, Tensor]:
    """W_enc, b_enc, W_dec, b_dec, nothing near a neutral value."""
    return {
        "W_enc": draw(D_IN, D_SAE, seed=1),
        "b_enc": 0.3 * draw(D_SAE, seed=2),
        "W_dec": draw(D_SAE, D_IN, seed=3),
        "b_dec": 0.5 * draw(D_IN, seed=4),
    }


def largest(pre: Tensor, k: int = K) -> Tensor:
    top = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values)


X = draw(ROWS, D_IN, seed=9) + 0.7


def agrees(dictionary: Dictionary, codes: Tensor, out: Tensor) -> None:
    sae = dictionary.sae
    torch.testing.assert_close(sae.encode(X), codes, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), out, atol=2e-4, rtol=1e-5)
    assert (codes != 0).any()


# --- ViT-Prisma -----------------------------------------------------------------------------------------------------


def prisma_standard(s: dict[str, Tensor]) -> Codes:
    codes = ((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    return codes, codes @ s["W_dec"] + s["b_dec"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_prisma_standard(wrapped: bool, tmp_path: Path) -> None:
    state = flat()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "weights.pt")
    config = {"architecture": "standard", "activation_fn_str": "relu", "hook_point": "blocks.9.hook_resid_post"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    dictionary = open_foreign(tmp_path)
    agrees(dictionary, *prisma_standard(state))
    assert dictionary.sae.cfg.metadata.hook_name == "blocks.9.hook_resid_post"
    assert dictionary.sae.cfg.metadata.converted_from == "vit-prisma"


def test_prisma_topk_behind_a_layer_norm(tmp_path: Path) -> None:
    state = flat()
    save_file(state, tmp_path / "weights.safetensors")
    config = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": "layer_norm",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    mean = X.mean(-1, keepdim=True)
    spread = (X - mean).std(-1, keepdim=True)
    codes = largest(((X - mean) / (spread + 1e-5) - state["b_dec"]) @ state["W_enc"] + state["b_enc"]).relu()
    agrees(open_foreign(tmp_path), codes, (codes @ state["W_dec"] + state["b_dec"]) * spread + mean)


def test_prisma_gated(tmp_path: Path) -> None:
    state = {**flat(), "b_gate": draw(D_SAE, seed=5), "b_mag": draw(D_SAE, seed=6), "r_mag": 0.2 * draw(D_SAE, seed=7)}
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "gated", "activation_fn_str": "relu"}))
    seen = X - state["b_dec"]
    fires = seen @ state["W_enc"] + state["b_gate"] > 0
    codes = fires * (seen @ (state["W_enc"] * state["r_mag"].exp()) + state["b_mag"]).relu()
    agrees(open_foreign(tmp_path), codes, codes @ state["W_dec"] + state["b_dec"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation_fn_str": "tanh-relu"}, "one of the activations relu.*found activation_fn_str='tanh-relu'"),
        (
            {"activation_fn_str": "relu", "is_transcoder": True},
            "a vit-prisma dictionary that is equal to a SAELens.*transcoder",
        ),
    ],
)
def test_unsupported_prisma_dictionaries_are_refused(config: dict, message: str, tmp_path: Path) -> None:
    torch.save(flat(), tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        open_foreign(tmp_path)


# --- PatchSAE -------------------------------------------------------------------------------------------------------


class ViTSAERunnerConfig:
    """Pickled as PatchSAE's own class is."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("code of the checkpoint's authors was run")


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize(("layer", "hook"), [(10, "blocks.10.hook_resid_post"), (-2, None)])
def test_patchsae(pickled: bool, layer: int, hook: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = flat()
    values = {
        "block_layer": layer,
        "module_name": "resid",
        "gated_sae": False,
        "model_name": "openai/clip-vit-base-patch16",
    }
    module = ModuleType("src.sae_training.config")
    module.ViTSAERunnerConfig = ViTSAERunnerConfig
    with monkeypatch.context() as patch:
        for name in ("src", "src.sae_training", "src.sae_training.config"):
            patch.setitem(sys.modules, name, module)
        patch.setattr(ViTSAERunnerConfig, "__module__", "src.sae_training.config")
        config = ViTSAERunnerConfig(**values) if pickled else values
        torch.save({"cfg": config, "state_dict": state}, tmp_path / "patch.pt")
    dictionary = open_foreign(tmp_path / "patch.pt")
    agrees(dictionary, *prisma_standard(state))
    assert dictionary.sae.cfg.metadata.hook_name == hook
    assert dictionary.sae.cfg.metadata.model_name == "openai/clip-vit-base-patch16"


# --- dictionary_learning, sae-for-vlm -------------------------------------------------------------------------------


def linear(**more: Tensor) -> dict[str, Tensor]:
    """An encoder and a decoder as torch.nn.Linear keeps them."""
    return {
        "encoder.weight": draw(D_SAE, D_IN, seed=1),
        "encoder.bias": 0.3 * draw(D_SAE, seed=2),
        "decoder.weight": draw(D_IN, D_SAE, seed=3),
        **more,
    }


def auto_encoder(s: dict[str, Tensor]) -> Codes:
    codes = ((X - s["bias"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    return codes * s["decoder.weight"].norm(dim=0), codes @ s["decoder.weight"].T + s["bias"]


def auto_encoder_new(s: dict[str, Tensor]) -> Codes:
    codes = (X @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    return codes, codes @ s["decoder.weight"].T + s["decoder.bias"]


def gated(s: dict[str, Tensor]) -> Codes:
    seen = (X - s["decoder_bias"]) @ s["encoder.weight"].T
    codes = (seen + s["gate_bias"] > 0) * (s["r_mag"].exp() * seen + s["mag_bias"]).relu()
    return codes, codes @ s["decoder.weight"].T + s["decoder_bias"]


def topk(s: dict[str, Tensor]) -> Codes:
    codes = largest(((X - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu(), int(s["k"]))
    return codes, codes @ s["decoder.weight"].T + s["b_dec"]


def batch_topk(s: dict[str, Tensor]) -> Codes:
    acts = ((X - s["b_dec"]) @ s["encoder.weight"].T + s["encoder.bias"]).relu()
    codes = acts * (acts > s["threshold"])
    return codes, codes @ s["decoder.weight"].T + s["b_dec"]


def matryoshka(s: dict[str, Tensor]) -> Codes:
    acts = ((X - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    codes = acts * (acts > s["threshold"])
    return codes, codes @ s["W_dec"] + s["b_dec"]


def jumprelu(s: dict[str, Tensor]) -> Codes:
    pre = X @ s["W_enc"] + s["b_enc"]
    codes = (pre * (pre > s["threshold"])).relu()
    return codes, codes @ s["W_dec"] + s["b_dec"]


B = 0.5 * draw(D_IN, seed=4)
GATES = {"r_mag": 0.2 * draw(D_SAE, seed=7), "gate_bias": draw(D_SAE, seed=5), "mag_bias": draw(D_SAE, seed=6)}
CUT, UNCUT = torch.tensor(1.5), torch.tensor(-1.0)
COUNT = torch.tensor(K, dtype=torch.int)
DICTIONARY_LEARNING = [
    ("AutoEncoder", linear(bias=B), auto_encoder),
    ("AutoEncoderNew", linear(**{"decoder.bias": B}), auto_encoder_new),
    ("GatedAutoEncoder", {**linear(decoder_bias=B), **GATES}, gated),
    ("AutoEncoderTopK", linear(b_dec=B, k=COUNT, threshold=UNCUT), topk),
    ("BatchTopKSAE", linear(b_dec=B, k=COUNT, threshold=CUT), batch_topk),
    ("BatchTopKSAE", linear(b_dec=B, k=COUNT, threshold=UNCUT), batch_topk),
    (
        "MatroyshkaBatchTopKSAE",
        {**flat(), "k": COUNT, "threshold": CUT, "group_sizes": torch.tensor([10, 30])},
        matryoshka,
    ),
    ("JumpReluAutoEncoder", {**flat(), "threshold": draw(D_SAE, seed=8).abs()}, jumprelu),
]


@pytest.mark.parametrize(("kind", "state", "arithmetic"), DICTIONARY_LEARNING)
def test_dictionary_learning(
    kind: str, state: dict[str, Tensor], arithmetic: Callable[..., Codes], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": K, "lm_name": "clip"}}))
    dictionary = open_foreign(tmp_path)
    agrees(dictionary, *arithmetic(state))
    assert dictionary.sae.cfg.metadata.model_name == "clip"


@pytest.mark.parametrize(("kind", "state", "arithmetic"), DICTIONARY_LEARNING[:5] + DICTIONARY_LEARNING[6:])
def test_dictionary_learning_is_told_from_its_tensors(
    kind: str, state: dict[str, Tensor], arithmetic: Callable[..., Codes], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "ae.pt")
    agrees(open_foreign(tmp_path / "ae.pt"), *arithmetic(state))


# --- MSAE -----------------------------------------------------------------------------------------------------------


def msae(tied: bool = False) -> dict:
    model = {
        "pre_bias": 0.5 * draw(D_IN, seed=4),
        "encoder": draw(D_IN, D_SAE, seed=1),
        "latent_bias": 0.3 * draw(D_SAE, seed=2),
        "latents_activation_frequency": torch.zeros(D_SAE, dtype=torch.int64),
    }
    if not tied:
        model["decoder"] = draw(D_SAE, D_IN, seed=3)
    return {"model": model, "mean_center": draw(D_IN, seed=5), "scaling_factor": np.float32(2.5), "target_norm": 1.0}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("activation", "act"), [("ReLU_003", torch.relu), ("TopKReLU_5", lambda p: largest(p).relu())])
@pytest.mark.parametrize("weighting", ["", "_RW"])
def test_msae(activation: str, act: Callable[[Tensor], Tensor], tied: bool, weighting: str, tmp_path: Path) -> None:
    saved = msae(tied)
    path = tmp_path / f"40_12_{activation}{weighting}_{tied}_False_0.0_imagenet.pth"
    torch.save(saved, path)
    model, scale, mean = saved["model"], float(saved["scaling_factor"]), saved["mean_center"]
    codes = act(((X - mean) * scale - model["pre_bias"]) @ model["encoder"] + model["latent_bias"])
    decoder = model["encoder"].T if tied else model["decoder"]
    agrees(open_foreign(path), codes, (codes @ decoder + model["pre_bias"]) / scale + mean)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("40_12_ReLU_003_False_False_30.0_x.pth", "codes bent by a soft cap at 30.0"),
        ("40_12_TopKabs_5_False_False_0.0_x.pth", "the activation TopKabs"),
        ("40_12_ReLU_003_False_True_0.0_x.pth", "a mean or scale of the data before a layer norm"),
        ("mine.pth", "under the name its training gave it.*found mine.pth"),
    ],
)
def test_msae_dictionaries_without_an_equal_are_errors(name: str, message: str, tmp_path: Path) -> None:
    torch.save(msae(), tmp_path / name)
    with pytest.raises(InputError, match=message):
        open_foreign(tmp_path / name)


# --- clipscope ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [K, None])
def test_clipscope(k: int | None, tmp_path: Path) -> None:
    state = {"pre_b": 0.5 * draw(D_IN, seed=4), "enc": draw(D_IN, D_SAE, seed=1), "dec": draw(D_SAE, D_IN, seed=3)}
    path = tmp_path / "22_resid" / "1200013184.pt"
    path.parent.mkdir()
    saved = {"n_features": D_SAE, "d_in": D_IN, "model_state_dict": state}
    torch.save({**saved, "k": k} if k else saved, path)
    pre = (X - state["pre_b"]) @ state["enc"]
    codes = largest(pre, k) if k else pre.relu()
    dictionary = open_foreign(path)
    agrees(dictionary, codes, codes @ state["dec"] + state["pre_b"])
    assert dictionary.sae.cfg.metadata.hook_name == "blocks.22.hook_resid_post"


# --- saev -----------------------------------------------------------------------------------------------------------


def saev_file(path: Path, header: dict, state: dict[str, Tensor]) -> Path:
    weights = io.BytesIO()
    torch.save(state, weights)
    path.write_bytes(json.dumps(header).encode() + b"\n" + weights.getvalue())
    return path


def header(kind: str, schema: int = 5, **params: object) -> dict:
    return {"schema": schema, "cfg": {"d_model": D_IN, "d_sae": D_SAE, "activation": {"cls": kind, "params": params}}}


SAEV = [
    (header("Relu"), {}, torch.relu),
    (header("TopK", top_k=K), {}, largest),
    (header("BatchTopK", top_k=K), {"activation.threshold": torch.tensor(1.5)}, lambda p: p * (p > 1.5)),
    (header("BatchTopK", top_k=K), {"activation.threshold": torch.tensor(0.0)}, lambda p: p * (p > 0)),
    ({"schema": 1, "cls": "TopK", "cfg": {"d_model": D_IN, "exp_factor": 3, "top_k": K}}, {}, largest),
    ({"d_vit": D_IN, "exp_factor": 3, "l1_coeff": 1e-4}, {}, torch.relu),
]


@pytest.mark.parametrize(("head", "more", "act"), SAEV)
def test_saev(head: dict, more: dict[str, Tensor], act: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    state = flat()
    dictionary = open_foreign(saev_file(tmp_path / "sae.pt", head, {**state, **more}))
    codes = act(X @ state["W_enc"] + state["b_enc"])
    agrees(dictionary, codes, codes @ state["W_dec"] + state["b_dec"])


# --- all of them ----------------------------------------------------------------------------------------------------


def test_open_dictionary_opens_saelens_and_foreign_folders(tmp_path: Path) -> None:
    torch.save(linear(b_dec=B, k=COUNT, threshold=UNCUT), tmp_path / "ae.pt")
    theirs = open_dictionary(tmp_path / "ae.pt")
    ours = open_dictionary(theirs.save(tmp_path / "sae"))
    assert torch.equal(ours.sae.encode(X), theirs.sae.encode(X))
    with pytest.raises(InputError, match="no file"):
        open_dictionary(tmp_path / "nothing")


def test_a_converted_dictionary_is_saved_in_saelens_format(tmp_path: Path) -> None:
    torch.save(linear(b_dec=B, k=COUNT, threshold=UNCUT), tmp_path / "ae.pt")
    dictionary = open_foreign(tmp_path / "ae.pt", hook_name="blocks.22.hook_resid_post")
    loaded = Dictionary.load(dictionary.save(tmp_path / "sae"))
    assert torch.equal(loaded.sae.encode(X), dictionary.sae.encode(X))
    assert loaded.sae.cfg.metadata.hook_name == "blocks.22.hook_resid_post"


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise AssertionError('the pickle was run')",))


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({**flat(), "surprise": Trap()}, tmp_path / "a.pt")
    with pytest.raises(UnsafeFileError, match="nothing but tensors, numbers and known configs"):
        open_foreign(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UnsafeFileError):
        open_foreign(tmp_path / "b.pt")


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    torch.save(flat(), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError, match="a torch checkpoint in"):
        open_foreign(tmp_path / "a.pt")


def test_unknown_checkpoints_are_errors_that_list_the_layouts(tmp_path: Path) -> None:
    torch.save({"codebook": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a checkpoint of clipscope, dictionary-learning, msae.*with codebook"):
        open_foreign(tmp_path / "a.pt")
    with pytest.raises(UnknownNameError, match=r"found 'prisma'.*'vit-prisma'"):
        open_foreign(tmp_path / "a.pt", "prisma")
    with pytest.raises(InputError, match="no file"):
        open_foreign(tmp_path / "nothing.pt")


def test_every_layout_is_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "dictionaries.md").read_text()
    assert [name for name in layouts() if f"| `{name}` |" not in page] == []
