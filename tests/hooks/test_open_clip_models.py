"""open_clip models by name: local files and folders, what is refused, and what never reaches the network."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import cliplens
from cliplens.contracts import LoadedModel
from cliplens.errors import InputError, MismatchError, UnknownNameError, UnsafeFileError
from cliplens.hooked import tokenizer_sha256
from cliplens_hooks.models.open_clip import OpenClipModels
from support.tiny import TEXT, VISION, tiny_images, tiny_model, tiny_tokens

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
CONFIG = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny configuration under a name, as `open_clip.add_model_config` makes known."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-clip", CONFIG)
    return "tiny-clip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3}})
    )
    save_file(tiny_model().state_dict(), tmp_path / "open_clip_model.safetensors")
    return tmp_path


def load(name: str, pretrained: str | None = None, **options: Any) -> LoadedModel:
    return OpenClipModels().load(name, pretrained, **{**CPU, **options})


def test_a_folder_loads_with_its_preprocess(folder: Path) -> None:
    loaded = load(f"local-dir:{folder}")
    assert torch.equal(loaded.module.encode_image(tiny_images()), tiny_model().encode_image(tiny_images()))
    assert json.loads(loaded.identity.preprocess)["mean"] == [0.5, 0.5, 0.5]
    assert json.loads(loaded.identity.preprocess)["size"] == [32, 32]
    assert not loaded.module.training
    clip = cliplens.load(f"local-dir:{folder}", device="cpu")
    assert torch.equal(clip(tiny_images(), tiny_tokens()), tiny_model().get_logits(tiny_images(), tiny_tokens())[0])


def test_weights_files_load_and_the_identity_does_not_depend_on_dtype(named: str, tmp_path: Path) -> None:
    save_file(tiny_model().state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": tiny_model().state_dict()}, tmp_path / "w.pt")
    tensors, pickled = (
        load(named, str(tmp_path / "w.safetensors")),
        load(named, str(tmp_path / "w.pt"), dtype=torch.float16),
    )
    assert tensors.identity.weights_sha256 == pickled.identity.weights_sha256
    assert next(pickled.module.parameters()).dtype == torch.float16


def test_without_pretrained_weights_are_random_and_a_warning_says_so(named: str) -> None:
    with pytest.warns(UserWarning, match="random weights"):
        first = load(named)
    assert load(named, "random").identity.weights_sha256 != first.identity.weights_sha256


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


def test_a_pickle_of_more_than_tensors_is_refused(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": {"x": Evil()}}, path)
    with pytest.raises(UnsafeFileError, match="tensors only"):
        load(named, str(path))
    path.write_bytes(pickle.dumps({"x": Evil()}, protocol=2))
    with pytest.raises(UnsafeFileError, match="safetensors"):
        load(named, str(path))
    assert "ran" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_of_something_else_is_refused(named: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "scripted.pt")
    with pytest.raises(MismatchError, match="Missing key"):
        load(named, str(tmp_path / "scripted.pt"))


def test_weights_of_another_architecture_are_refused(named: str, tmp_path: Path) -> None:
    save_file(tiny_model(vision={"width": 32}).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(MismatchError, match="size mismatch"):
        load(named, str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("name", "pretrained", "error", "words"),
    [
        ("ViT-B-32", "laion2b_s34b_b79", UnknownNameError, "'laion2b_s34b_b79k'"),
        ("ViT-B-32", "/no/such/file.safetensors", InputError, "no file at"),
        ("local-dir:/no/such/folder", None, InputError, "no such folder"),
        ("local-dir:/no/such/folder", "openai", InputError, "leave `pretrained` out"),
    ],
)
def test_missing_files_are_errors_before_a_model_is_built(
    name: str, pretrained: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(name, pretrained)


def test_an_unknown_model_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'ViT-B-32'"):
        cliplens.load("VIT-B-33")


def test_no_name_without_a_tag_reaches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS,
        "tiny-siglip",
        {**CONFIG, "text_cfg": {**TEXT, "hf_tokenizer_name": "timm/none"}},
    )
    with pytest.warns(UserWarning, match="no tokenizer"):
        assert load("tiny-siglip", "random").tokenizer is None


def test_model_objects_are_adopted_with_their_preprocess() -> None:
    model = tiny_model("custom", text={"vocab_size": 49408})
    model.visual.preprocess_cfg = {"size": 32, "mean": (0.5, 0.5, 0.5)}
    loaded = OpenClipModels().adopt(model)
    assert loaded is not None
    assert loaded.module is model
    assert loaded.tokenizer is not None
    assert loaded.tokenizer(["a cat"]).shape == (1, 8)
    assert loaded.preprocess is not None
    assert OpenClipModels().adopt(nn.Linear(2, 2)) is None
    bare = OpenClipModels().adopt(tiny_model())
    assert bare is not None
    assert bare.preprocess is bare.tokenizer is None


def test_tokenizers_that_behave_alike_have_one_hash() -> None:
    first, second = (open_clip.SimpleTokenizer(context_length=n) for n in (77, 77))
    assert (
        tokenizer_sha256(first)
        == tokenizer_sha256(second)
        != tokenizer_sha256(open_clip.SimpleTokenizer(context_length=76))
    )


def test_every_configuration_has_a_family() -> None:
    cards = OpenClipModels().models()
    assert len(cards) == 144
    assert Counter(card.vision_level for card in cards) == {"heads": 115, "stages": 28, "blocks": 1}
    assert sum(card.text_level == "heads" for card in cards) == 134
    assert "laion2b_s34b_b79k" in next(card for card in cards if card.name == "ViT-B-32").pretrained
