"""Dictionaries: what reaches what, which folders are dictionaries, and checkpoints within wrappers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cliplens.errors import DamagedError, InputError, UnknownNameError, UnsafeFileError
from cliplens.records import PairedActs
from cliplens.sae import Dictionary, open_foreign
from cliplens.sae import dictionary as dictionary_module
from cliplens.sae.folder import _check_activation, _check_finite, is_dictionary, is_saelens
from cliplens.sae.foreign.activation import configured_activation
from cliplens.sae.foreign.dictionary_learning import DictionaryLearning
from cliplens.sae.foreign.layout import Checkpoint, SaeSpec
from cliplens.sae.foreign.msae import MSAE
from cliplens.sae.foreign.openai import OpenAI
from cliplens.sae.foreign.overcomplete import _normalised
from cliplens.sae.foreign.patchsae import _hook
from cliplens.sae.foreign.plain import Plain
from cliplens.sae.foreign.prisma import _has_k, _norm
from cliplens.sae.foreign.reading import _weights_in, read_checkpoint
from cliplens.sae.foreign.saev import Saev
from cliplens.sae.foreign.visaebench import ViSAEBench
from cliplens.sae.foreign.weights import check_spec, matrix
from cliplens.sae.hashes import check_hashes, write_hashes
from cliplens.sae.pretrained import _asking_hub
from cliplens.sae.provenance import folded_mean_of, read_provenance
from support.dictionaries import D_IN, D_SAE, ROWS, dictionary_of, sae_of
from support.streams import paired, provenance


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


E, B, D, PRE = draw(24, 10, seed=1), 0.3 * draw(24, seed=2), draw(24, 10, seed=3), draw(10, seed=4)
PLAIN = {"W_enc": E.T.contiguous(), "b_enc": B, "W_dec": D, "b_dec": PRE}
X = draw(80, 10, seed=9) + 0.4


# --- dictionaries


def test_every_option_of_a_published_dictionary_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def read(*args: Any, **options: Any) -> tuple[Any, None, None]:
        asked.append((args, options))
        return sae_of("topk"), None, None

    monkeypatch.setattr(dictionary_module, "read_pretrained", read)
    told = {"layout": "plain", "hook_name": "h", "revision": "r", "device": "cpu"}
    made = Dictionary.from_pretrained("hf:a/b", "inner", **told)
    assert asked == [(("hf:a/b", "inner"), told)]
    assert (made.means, made.provenance) == (None, None)
    Dictionary.from_pretrained("hf:a/b")
    nothing = {"layout": None, "hook_name": None, "revision": None, "device": "cpu"}
    assert asked[1] == (("hf:a/b", None), nothing)


def test_everything_in_a_batch_is_on_the_device_of_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, acts = dictionary_of("topk"), paired(6, D_IN)
    with monkeypatch.context() as patch:
        patch.setattr(Dictionary, "device", torch.device("meta"))
        moved = dictionary._here(acts)
        assert (moved.image.device.type, moved.text.device.type, moved.ids) == ("meta", "meta", acts.ids)
        assert dictionary._here(PairedActs(acts.ids, None, acts.text)).image is None
    same = dictionary.to("cpu")
    assert same.sae is not dictionary.sae
    assert torch.equal(same.decoder, dictionary.decoder)
    assert (same.means is not None, same.provenance) == (True, dictionary.provenance)


def test_a_batch_holds_what_it_is_given() -> None:
    dictionary, acts = dictionary_of("topk"), paired(6, D_IN)
    judged = {"judge": PairedActs(acts.ids, acts.image[:, :3], acts.text[:, :3])}
    targets = {"t": torch.ones(6, dtype=torch.bool).numpy()}
    batch = dictionary.batch(acts, judged=judged, targets=targets)
    assert batch.raw is not None
    assert torch.equal(batch.raw.image, acts.image)
    assert torch.equal(batch.judged["judge"].text, acts.text[:, :3])
    assert batch.targets == targets
    assert (batch.truth, dictionary.batch(acts).judged, dictionary.batch(acts).targets) == (None, {}, {})
    torch.testing.assert_close(batch.acts.text, acts.text - dictionary.means["text"])


@pytest.mark.parametrize("architecture", ["layer_norm", "constant_norm_rescale"])
def test_rows_that_are_normalised_are_rebuilt_with_their_own_scale(architecture: str) -> None:
    sae = sae_of("standard", normalise=architecture)
    dictionary, acts = Dictionary(sae), paired(6, D_IN)
    for modality in ("image", "text"):
        torch.testing.assert_close(dictionary.batch(acts).reconstruction.of(modality), sae(acts.of(modality)))
    assert dictionary.batch(PairedActs(acts.ids, acts.image, None)).reconstruction.text is None
    with pytest.raises(InputError, match=f"normalize_activations='{architecture}'.*use Dictionary.batch"):
        dictionary.decode(dictionary.encode(acts))


@pytest.mark.parametrize("reads_less", [True, False])
def test_matching_pursuit_adds_its_bias_only_where_it_subtracts_it(reads_less: bool) -> None:
    sae, acts = sae_of("matching_pursuit", reads_less_b_dec=reads_less), paired(ROWS, D_IN)
    dictionary = Dictionary(sae)
    rebuilt = dictionary.decode(dictionary.encode(acts)).image
    torch.testing.assert_close(rebuilt, sae(acts.image), atol=1e-4, rtol=1e-4)


def test_a_dictionary_tells_its_architecture_and_device() -> None:
    made = dictionary_of("topk")
    assert (made.architecture, made.device.type, made.d_in, made.d_sae) == ("topk", "cpu", D_IN, D_SAE)
    assert all(part in repr(made) for part in ("topk", "vision.hook_embedding", "text.hook_embedding", f"{D_SAE}"))
    mean = torch.zeros(D_IN)
    assert "raw activations" in repr(Dictionary(made.sae))
    assert "means of image and text subtracted" in repr(Dictionary(made.sae, {"text": mean, "image": mean}))


def test_parts_of_rows_are_joined_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary, acts = dictionary_of("topk"), paired(ROWS, D_IN)
    whole = dictionary.encode(acts)
    for limit in (1, D_SAE, 3 * D_SAE, (ROWS // 2 + 1) * D_SAE, ROWS * D_SAE):  # the last but one: two parts
        monkeypatch.setattr("cliplens.sae.encoding._DENSE_LIMIT", limit)
        parts = dictionary.encode(acts)
        assert torch.equal(parts.text.rows, whole.text.rows)
        assert torch.equal(parts.text.latents, whole.text.latents)
        assert (parts.text.n_rows, parts.text.d_sae) == (ROWS, D_SAE)


# --- folders


def test_a_folder_is_a_dictionary_with_both_files_and_saelens_with_its_fields(tmp_path: Path) -> None:
    whole = dictionary_of("topk").save(tmp_path / "sae")
    assert is_dictionary(whole)
    assert is_saelens(whole)
    for name in ("cfg.json", "sae_weights.safetensors"):
        part = tmp_path / name.replace(".", "-")
        part.mkdir()
        (part / name).write_bytes((whole / name).read_bytes())
        assert not is_dictionary(part)
        assert not is_saelens(part)
        with pytest.raises(InputError, match=r"Expected a folder with cfg\.json and .*, which has not both"):
            Dictionary.load(part)
    with pytest.raises(InputError, match="which is no folder"):
        Dictionary.load(tmp_path / "nothing")
    (whole / "cfg.json").write_text('{"d_in": 3, "d_sae": 4}')
    assert not is_saelens(whole)
    with pytest.raises(UnsafeFileError, match=r"found a pickle, a\.pt, in "):
        Dictionary.load(tmp_path / "a.pt")


def test_a_file_is_never_replaced_by_a_dictionary_and_leftovers_of_saelens_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="which is a file"):
        dictionary_of("topk").save(tmp_path / "file")
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "sparsity.safetensors").write_bytes(b"")
    (tmp_path / "sae" / "runner_cfg.json").write_text("{}")
    assert dictionary_of("topk").save(tmp_path / "sae") == tmp_path / "sae"


def test_copies_are_written_for_the_modalities_there_are(tmp_path: Path) -> None:
    one = replace(provenance(D_IN, centred=False), sites=("text.hook_embedding",))
    folder = Dictionary(sae_of("topk"), None, one).save(tmp_path / "text-only")
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["text"]
    from sae_lens import SAE

    metadata = SAE.load_from_disk(folder / "text").cfg.metadata
    assert (folded_mean_of(metadata), metadata.centring, metadata.clip_tower) == ("text", "none", "text")
    assert read_provenance(metadata) == one
    bare = Dictionary(sae_of("topk"), {"text": torch.ones(D_IN)}).save(tmp_path / "means-only")
    assert sorted(p.name for p in bare.iterdir() if p.is_dir()) == ["text"]
    assert Dictionary.load(bare).means.keys() == {"text"}


def test_hashes_cover_the_files_of_a_folder_but_not_of_its_copies(tmp_path: Path) -> None:
    assert not check_hashes(tmp_path)
    (tmp_path / "a").write_text("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("b")
    write_hashes(tmp_path)
    write_hashes(tmp_path)
    assert list(json.loads((tmp_path / "sha256.json").read_text())) == ["a"]
    assert check_hashes(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(DamagedError, match=r"Expected the file a of the dictionary in .*no such file"):
        check_hashes(tmp_path)


@pytest.mark.parametrize(
    ("config", "architecture", "k", "fine"),
    [
        ({}, "standard", None, True),
        ({"activation_fn_str": "relu"}, "standard", None, True),
        ({"activation_fn": "ReLU"}, "standard", None, True),
        ({"activation_fn_str": "topk"}, "topk", 6, True),
        ({"activation_fn_str": "topk"}, "standard", None, False),
        ({"activation_fn": "tanh"}, "standard", None, False),
        ({}, "topk", 1, True),
        ({}, "topk", D_SAE, True),
        ({}, "topk", D_SAE + 1, False),
        ({}, "topk", 0, False),
    ],
)
def test_the_activation_of_an_early_configuration_is_that_saelens_uses(
    config: dict[str, str], architecture: str, k: int | None, fine: bool
) -> None:
    sae = sae_of(architecture)
    if k is not None:
        sae.cfg.k = k
    if fine:
        _check_activation(config, sae)
    else:
        with pytest.raises(InputError, match=r"k from 1 to 60|the activation relu, or"):
            _check_activation(config, sae)


def test_thresholds_may_be_infinite_and_nothing_else(tmp_path: Path) -> None:
    _check_finite({"threshold": torch.tensor([1.0, torch.inf])}, tmp_path)
    for name, value in (("threshold", torch.nan), ("W_dec", torch.inf), ("the image mean", torch.nan)):
        with pytest.raises(InputError, match=f"finite numbers in {name} of .*found 1 that are nan or infinite"):
            _check_finite({"b": torch.ones(2), name: torch.tensor([1.0, value])}, tmp_path)


# --- checkpoints of other projects


def checkpoint(config: dict[str, Any] | None = None, **state: torch.Tensor) -> Checkpoint:
    return Checkpoint(Path("x.pt"), {name.replace("__", "."): value for name, value in state.items()}, config or {})


def test_linear_layers_are_of_dictionary_learning_only_with_a_bias_of_theirs() -> None:
    linear = {"encoder__weight": E, "decoder__weight": D.T}
    assert not DictionaryLearning().recognises(checkpoint(**linear))
    assert DictionaryLearning().recognises(checkpoint(**linear, decoder__bias=PRE))


@pytest.mark.parametrize("field", ["architecture", "apply_b_dec_to_input"])
def test_flat_weights_with_one_field_of_saelens_are_not_of_dictionary_learning(field: str) -> None:
    flat = {"W_enc": E.T, "b_dec": PRE, "threshold": B}
    assert DictionaryLearning().recognises(checkpoint(**flat))
    assert not DictionaryLearning().recognises(checkpoint({field: "jumprelu"}, **flat))


def test_openais_dictionaries_may_have_no_decoder_of_their_own(tmp_path: Path) -> None:
    tied = {"encoder.weight": E, "latent_bias": B, "pre_bias": PRE}
    torch.save(tied, tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text('{"activation": "relu"}')
    sae = open_foreign(tmp_path).sae
    torch.testing.assert_close(sae(X), ((X - PRE) @ E.T + B).relu() @ E + PRE, atol=1e-4, rtol=1e-4)


def test_a_decoder_with_a_row_per_latent_and_a_bias_is_of_visaebench_unless_it_is_square() -> None:
    wide = {"encoder__weight": E, "decoder__weight": D, "encoder__bias": B, "decoder__bias": PRE}
    assert ViSAEBench().recognises(checkpoint(**wide))
    square = {"encoder__weight": E[:10], "decoder__weight": D[:10], "encoder__bias": B[:10], "decoder__bias": PRE}
    assert not ViSAEBench().recognises(checkpoint(**square))
    assert ViSAEBench().recognises(checkpoint({"input_dim": 10}, **square))


def test_a_configuration_says_whether_the_bias_is_taken_from_the_input(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "weights.pt")
    for asked in (True, False):
        told = {"activation_fn_str": "relu", "apply_b_dec_to_input": asked}
        (tmp_path / "config.json").write_text(json.dumps(told))
        sae = open_foreign(tmp_path).sae
        assert sae.cfg.apply_b_dec_to_input == asked
        torch.testing.assert_close(sae(X), ((X - asked * PRE) @ E.T + B).relu() @ D + PRE, atol=1e-4, rtol=1e-4)


def wrapped(state: Any, *names: str) -> Any:
    for name in names:
        state = {name: state, "step": 3}
    return state


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (wrapped(PLAIN, "state_dict"), True),
        (wrapped(PLAIN, "model", "state_dict"), True),
        (wrapped(PLAIN, "weights", "sae", "autoencoder"), True),
        (wrapped(PLAIN, "weights", "sae", "autoencoder", "model"), False),
        ({"module." + n: t for n, t in PLAIN.items()}, True),
        ({"module._orig_mod.sae." + n: t for n, t in PLAIN.items()}, True),
        ({"model.module._orig_mod.sae." + n: t for n, t in PLAIN.items()}, False),
        ({**{"ae." + n: t for n, t in PLAIN.items()}, "other": B}, False),
        ({**PLAIN, "model": {"x": E}}, True),
    ],
)
def test_tensors_are_found_within_three_wrappers_and_three_prefixes(content: Any, found: bool) -> None:
    state = Checkpoint(Path("x.pt"), content).state
    assert ("W_enc" in state) == found


def test_a_layout_notes_what_it_reads() -> None:
    read: set[str] = set()
    state = Checkpoint(Path("x.pt"), PLAIN, read=read).state
    assert read == set()
    assert state["W_enc"] is PLAIN["W_enc"]
    assert state.get("nothing", 4) == 4
    assert state.get("b_enc") is B
    assert read == {"W_enc", "b_enc", "nothing"}


@pytest.mark.parametrize("name", ["l1", "l2", "max_l1", "max_l2", "identity", None])
@pytest.mark.parametrize("section", [False, True])
def test_overcompletes_normalisations(name: str | None, section: bool) -> None:
    rows = D.clone()
    rows[3] = 0
    config: dict[str, Any] = {"normalization": name}
    found = _normalised(rows, {"dictionary_params": config} if section else config)
    if name in ("identity", None):
        assert torch.equal(found, rows)
        return
    norms = rows.abs().sum(1) if name.endswith("1") else rows.square().sum(1).sqrt()
    expected = rows / (norms.max() if name.startswith("max") else (norms + 1e-8)[:, None])
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)
    assert torch.isfinite(found).all()
    with pytest.raises(InputError, match="the dictionary normalization 'softmax'"):
        _normalised(rows, {"normalization": "softmax"})


def test_a_normalised_dictionary_of_overcomplete_opens_with_its_rows_normalised(tmp_path: Path) -> None:
    state = {
        "encoder.final_block.0.weight": E,
        "encoder.final_block.0.bias": B,
        "dictionary._weights": D,
    }
    torch.save(state, tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text('{"activation": "relu", "normalization": "l2"}')
    rows = D / D.norm(dim=1, keepdim=True)
    torch.testing.assert_close(open_foreign(tmp_path).sae(X), (X @ E.T + B).relu() @ rows, atol=1e-4, rtol=1e-4)


def test_overcompletes_multiplier_is_the_logarithm_of_a_factor(tmp_path: Path) -> None:
    state = {
        "encoder.final_block.0.weight": E,
        "encoder.final_block.0.bias": B,
        "dictionary._weights": D,
        "dictionary.multiplier": torch.tensor(0.7),
    }
    torch.save(state, tmp_path / "sae.pt")
    (tmp_path / "config.json").write_text('{"activation": "relu"}')
    codes = (X @ E.T + B).relu()
    sae = open_foreign(tmp_path).sae
    torch.testing.assert_close(sae(X), codes @ D * torch.tensor(0.7).exp(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "hook"),
    [
        ({"block_layer": 0}, "blocks.0.hook_resid_post"),
        ({"block_layer": 11, "module_name": "resid"}, "blocks.11.hook_resid_post"),
        ({"block_layer": -1}, None),
        ({"block_layer": 3, "module_name": "mlp"}, None),
    ],
)
def test_the_hook_of_patchsae(config: dict[str, Any], hook: str | None) -> None:
    assert _hook(config) == hook


@pytest.mark.parametrize(
    ("config", "k"),
    [({}, 64), ({"k": 3}, 3), ({"activation_fn_kwargs": {"k": 5}}, 5), ({"activation_fn_kwargs": {}}, 64)],
)
def test_prismas_topk_has_64_where_its_config_does_not_say(config: dict[str, Any], k: int, tmp_path: Path) -> None:
    state = {"W_enc": draw(10, 70), "b_enc": draw(70), "W_dec": draw(70, 10), "b_dec": PRE}
    torch.save(state, tmp_path / "weights.pt")
    told = {"activation_fn_str": "topk", "model_name": "m", "hook_name": "h", **config}
    (tmp_path / "config.json").write_text(json.dumps(told))
    sae = open_foreign(tmp_path).sae
    assert (sae.cfg.k, sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name) == (k, "h", "m")
    assert _has_k(config) == (k != 64)
    assert (_norm({}), _norm({"normalize_activations": "layer_norm"})) == ("none", "layer_norm")
    with pytest.raises(InputError, match="normalize_activations='batch'"):
        _norm({"normalize_activations": "batch"})


def test_the_hook_that_is_asked_for_wins_over_the_checkpoints(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "weights.pt")
    (tmp_path / "config.json").write_text('{"activation_fn_str": "relu", "hook_point": "theirs"}')
    assert open_foreign(tmp_path).sae.cfg.metadata.hook_name == "theirs"
    assert open_foreign(tmp_path, hook_name="mine").sae.cfg.metadata.hook_name == "mine"


def test_a_config_beside_several_checkpoints_has_to_bear_the_name_of_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save(PLAIN, tmp_path / f"{name}.pt")
    (tmp_path / "a_cfg.json").write_text('{"activation": "relu", "note": "a"}')
    (tmp_path / "other.json").write_text('{"activation": "topk", "k": 3}')
    (tmp_path / "broken.json").write_text("{")
    assert read_checkpoint(tmp_path / "a.pt").config == {"activation": "relu", "note": "a"}
    assert read_checkpoint(tmp_path / "b.pt").config == {}
    (tmp_path / "b.pt").unlink()
    (tmp_path / "a_cfg.json").unlink()
    assert read_checkpoint(tmp_path / "a.pt").config == {"activation": "topk", "k": 3}
    (tmp_path / "other.json").write_text('{"note": "says nothing of an activation"}')
    assert read_checkpoint(tmp_path / "a.pt").config == {}


def test_a_config_within_a_checkpoint_is_joined_and_matrices_under_such_a_name_are_not(tmp_path: Path) -> None:
    torch.save({**PLAIN, "config": {"activation": "relu", "lr": 1}}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert (found.config, set(found.content)) == ({"activation": "relu", "lr": 1}, set(PLAIN))
    torch.save({**PLAIN, "config": {"W": E}}, tmp_path / "b.pt")
    assert "config" in read_checkpoint(tmp_path / "b.pt").content
    (tmp_path / "config.json").write_text('{"activation": "topk"}')
    with pytest.raises(InputError, match="activation='topk' in one file and activation='relu' in another"):
        read_checkpoint(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(InputError, match="a checkpoint with named tensors, but found list"):
        read_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("config", "named", "words"),
    [
        ({"k": 3, "auxk": 8}, None, None),
        ({"k": 3, "dead_steps_threshold": 100}, None, None),
        ({"k": 3}, None, "k=3 without an activation"),
        ({"auxk": 8}, None, "tensors that do not define it"),
        ({"k": 3, "auxk": 8}, "ReLU", "k=3 without an activation"),
    ],
)
def test_openais_training_class_is_topk_where_the_weights_name_nothing(
    config: dict[str, Any], named: str | None, words: str | None
) -> None:
    state: dict[str, Any] = {
        "encoder.weight": torch.ones(4, 2),
        "latent_bias": torch.zeros(4),
        "pre_bias": torch.ones(2),
    }
    if named is not None:
        state["activation"] = named
    checkpoint = Checkpoint(Path("sae.pt"), state, config)
    if words is None:
        spec = OpenAI().to_spec(checkpoint)
        assert (spec.architecture, spec.config["k"]) == ("topk", 3)
    else:
        with pytest.raises(InputError, match=words):
            OpenAI().to_spec(checkpoint)


@pytest.mark.parametrize(
    ("threshold", "k", "architecture", "cut"),
    [
        (torch.tensor(-1.0), 3, "topk", None),
        (torch.tensor(-1.0), None, "jumprelu", 0.0),
        (torch.tensor(0.0), 3, "jumprelu", 0.0),
        (torch.tensor(0.5), 3, "jumprelu", 0.5),
        (torch.tensor([0.5, -0.5, 1.0, 2.0]), None, "jumprelu", [0.5, -0.5, 1.0, 2.0]),
    ],
)
def test_a_threshold_below_zero_beside_k_is_a_topk_of_dictionary_learning(
    threshold: torch.Tensor, k: int | None, architecture: str, cut: Any
) -> None:
    state: dict[str, Any] = {"encoder.weight": torch.ones(4, 2), "decoder.weight": torch.ones(2, 4)}
    state |= {"encoder.bias": torch.zeros(4), "b_dec": torch.ones(2), "threshold": threshold}
    if k is not None:
        state["k"] = torch.tensor(k)
    spec = DictionaryLearning().to_spec(Checkpoint(Path("ae.pt"), state))
    assert spec.architecture == architecture
    assert spec.config.get("k") == (k if architecture == "topk" else None)
    if cut is not None:
        assert spec.tensors["threshold"].tolist() == torch.tensor(cut).expand(4).tolist()


@pytest.mark.parametrize(("threshold", "cut"), [(torch.tensor(-0.5), 0.0), (torch.tensor(0.5), 0.5)])
def test_one_threshold_of_plain_weights_follows_a_relu_and_one_per_latent_does_not(
    threshold: torch.Tensor, cut: float
) -> None:
    state = {"W_enc": torch.ones(2, 4), "b_enc": torch.zeros(4), "W_dec": torch.ones(4, 2), "b_dec": torch.ones(2)}
    spec = Plain().to_spec(Checkpoint(Path("sae.pt"), {**state, "threshold": threshold}))
    assert (spec.architecture, spec.tensors["threshold"].tolist()) == ("jumprelu", [cut] * 4)
    each = Plain().to_spec(Checkpoint(Path("sae.pt"), {**state, "threshold": threshold.expand(4)}))
    assert each.tensors["threshold"].tolist() == [float(threshold)] * 4


def test_what_a_checkpoint_holds_is_listed_up_to_eight_names_and_a_folder_up_to_four(tmp_path: Path) -> None:
    for held, listed in (({}, "nothing"), ({f"n{i}": 1 for i in range(9)}, "n0, n1, n2, n3, n4, n5, n6, n7.")):
        with pytest.raises(InputError, match=f"the tensor 'W' of .* plain layout, but found {listed}"):
            matrix(held, "W", "plain")
    with pytest.raises(InputError, match=r"but found int\. Fix"):
        matrix({"W": 3}, "W", "plain")
    for number in range(5):
        (tmp_path / f"{number}.pt").touch()
    with pytest.raises(InputError, match=r"found 5 in .* \(0.pt, 1.pt, 2.pt, 3.pt\). Fix: pass the path of one file"):
        _weights_in(tmp_path)


@pytest.mark.parametrize("architecture", ["bogus", 3, ["topk"], None])
def test_an_architecture_saelens_does_not_know_is_named(architecture: Any, tmp_path: Path) -> None:
    dictionary_of("topk").save(tmp_path / "sae")
    file = tmp_path / "sae" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architecture": architecture}))
    (tmp_path / "sae" / "sha256.json").unlink()
    with pytest.raises(UnknownNameError, match=r"found .*" + str(architecture).replace("[", r"\[")):
        Dictionary.load(tmp_path / "sae")


@pytest.mark.parametrize(("scale", "mean", "fine"), [(1.0, 0.0, True), (2.0, 0.0, False), (1.0, 0.5, False)])
def test_msae_behind_a_layer_norm_has_neither_mean_nor_scale(scale: float, mean: float, fine: bool) -> None:
    state: dict[str, Any] = {"encoder": E.T, "decoder": D, "pre_bias": PRE, "latent_bias": B}
    state |= {"mean_center": torch.tensor([mean] + [0.0] * 9), "scaling_factor": scale}
    made = Checkpoint(Path("24_10_ReLU_False_True_0.0_data.pth"), {"model": state, **state})
    if fine:
        assert MSAE().to_spec(made).config["normalize_activations"] == "layer_norm"
    else:
        with pytest.raises(InputError, match="a mean or scale of the data before a layer norm"):
            MSAE().to_spec(made)


@pytest.mark.parametrize(("k", "fine"), [(0, False), (1, True), (24, True), (25, False)])
def test_any_number_of_latents_may_fire(k: int, fine: bool) -> None:
    spec = SaeSpec("topk", PLAIN, {"k": k})
    if fine:
        check_spec(spec, "plain")
    else:
        with pytest.raises(InputError, match=f"k from 1 to 24, the number of latents, but found k={k}"):
            check_spec(spec, "plain")


@pytest.mark.parametrize(("params", "k"), [({}, 32), ({"top_k": 5}, 5)])
def test_saevs_topk_has_32_where_its_header_does_not_say(params: dict[str, int], k: int) -> None:
    weights = {"W_enc": torch.ones(2, 64), "b_enc": torch.zeros(64), "W_dec": torch.ones(64, 2), "b_dec": torch.ones(2)}
    header = {"schema": 5, "cfg": {"activation": {"cls": "TopK", "params": params}}}
    assert Saev().to_spec(Checkpoint(Path("sae.pt"), weights, header)).config["k"] == k


def test_decoder_norms_move_into_the_codes_of_dictionary_learnings_first_class(tmp_path: Path) -> None:
    """Also norms below 1; a row of zeros stays."""
    rows = D * torch.linspace(0, 2, 24)[:, None] / D.norm(dim=1, keepdim=True)
    torch.save({"encoder.weight": E, "encoder.bias": B, "decoder.weight": rows.T, "bias": PRE}, tmp_path / "ae.pt")
    dictionary = open_foreign(tmp_path)
    codes = ((X - PRE) @ E.T + B).relu()
    torch.testing.assert_close(dictionary.sae.encode(X), codes * rows.norm(dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.sae(X), codes @ rows + PRE, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dictionary.decoder.norm(dim=1), (torch.arange(24) > 0).float())


def test_one_latent_that_fires_is_a_whole_number_and_none_is_not() -> None:
    assert configured_activation({"activation": "topk", "k": 1}).k == 1
    assert configured_activation({"activation": "topk", "k": 2.0}).k == 2
    for k in (0, 0.5, float("inf"), True, "3"):
        with pytest.raises(InputError, match="as a whole number of at least 1"):
            configured_activation({"activation": "topk", "k": k})


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError("no route\nat all"), "OSError: no route. Fix"), (ValueError(""), "ValueError: ValueError")],
)
def test_what_the_hub_says_is_passed_on_in_one_line(error: Exception, said: str) -> None:
    def ask() -> None:
        raise error

    with pytest.raises(InputError, match=f"the dictionary a/b from the Hugging Face hub.*found {said}"):
        _asking_hub("a/b", ask)
