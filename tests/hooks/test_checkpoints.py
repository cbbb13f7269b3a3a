"""Weights files in the containers people save: what opens, what is refused, and in which words."""

import json
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import cliplens
from cliplens.errors import CliplensError, DamagedError, InputError, MismatchError, UnsafeFileError
from cliplens_hooks.models.checkpoints import read_tensors
from support.tiny import TEXT, VISION, tiny_images, tiny_model

State = dict[str, Tensor]
NUMBERS = {name: torch.tensor(8) for name in ("input_resolution", "context_length", "vocab_size")}


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration open_clip knows for the length of a test."""
    for registry in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
        monkeypatch.setattr(open_clip.factory, registry, copy(getattr(open_clip.factory, registry)))
    (tmp_path / "tiny-checkpoint.json").write_text(
        json.dumps({"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT})
    )
    open_clip.add_model_config(tmp_path / "tiny-checkpoint.json")
    return "tiny-checkpoint"


def prefixed(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {f"{''.join(prefixes)}{key}": value for key, value in state.items()}


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    **{" ".join(p): prefixed(*p) for p in (["module."], ["model."], ["_orig_mod."], ["module.", "_orig_mod."])},
    "a word of its own": prefixed("student.backbone."),
    "compiled encoder": lambda state: {key.replace("visual.", "visual._orig_mod."): v for key, v in state.items()},
    "open_clip training": lambda state: {
        "epoch": 3,
        "name": "run",
        "state_dict": prefixed("module.")(state),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    },
    "Lightning": lambda state: {"epoch": 1, "state_dict": prefixed("model.")(state)},
    "under model": lambda state: {"model": state, "step": 10},
    "under model_state_dict": lambda state: {"model_state_dict": prefixed("clip.")(state)},
    "OpenAI's numbers": lambda state: {**state, **NUMBERS},
    "half precision": lambda state: {key: value.half().float() for key, value in state.items()},
    "scale as one row": lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container: str, suffix: str, name: str, tmp_path: Path) -> None:
    model = tiny_model(seed=3)
    torch.save(CONTAINERS[container](model.state_dict()), tmp_path / f"weights{suffix}")
    got = cliplens.load(name, str(tmp_path / f"weights{suffix}"), device="cpu").encode_image(tiny_images())
    torch.testing.assert_close(got, model.encode_image(tiny_images()), rtol=1e-2, atol=2e-2)


def test_weights_of_other_modules_are_left_out_with_a_warning(name: str, tmp_path: Path) -> None:
    state = {**prefixed("model.")(tiny_model(seed=3).state_dict()), "loss.weight": torch.ones(2)}
    torch.save({"state_dict": state}, tmp_path / "weights.ckpt")
    with pytest.warns(UserWarning, match=r"1 tensors outside 'model\.' .* 'loss.weight'"):
        cliplens.load(name, str(tmp_path / "weights.ckpt"), device="cpu")


class Archive(nn.Module):
    """Looks like OpenAI's TorchScript archives: the model's parts, three numbers, and code."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for key, part in model.named_children():
            self.add_module(key, part)
        for key, value in model.named_parameters(recurse=False):
            self.register_parameter(key, value)
        for key, value in NUMBERS.items():
            self.register_buffer(key, value)
        self.inner = [model]

    def forward(self, images: Tensor) -> Tensor:
        return self.inner[0].encode_image(images)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_opens_without_its_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(seed=3)
    with torch.no_grad():
        torch.jit.trace(Archive(model), tiny_images(1), check_trace=False).save(str(tmp_path / "ViT.pt"))
    monkeypatch.setattr(torch.jit, "load", lambda *given, **named: pytest.fail("the archive's code was loaded"))
    clip = cliplens.load(name, str(tmp_path / "ViT.pt"), device="cpu")
    assert all(torch.equal(v, clip.model.state_dict()[k]) for k, v in model.state_dict().items())


class Trainer:
    """An object of somebody's own in a pickle."""


def quantised(state: State) -> State:
    return {key: value.to(torch.int8) if key.endswith("c_fc.weight") else value for key, value in state.items()}


REFUSED: dict[str, tuple[Callable[[State], Any], type[CliplensError], str]] = {
    "another object": (
        lambda state: {"model": state, "trainer": Trainer()},
        UnsafeFileError,
        r"an object of \S*Trainer",
    ),
    "a whole model": (lambda state: tiny_model(), UnsafeFileError, "an object of open_clip"),
    "quantised": (quantised, MismatchError, "c_fc.weight' of dtype int8"),
    "a list": (lambda state: list(state.values()), InputError, "found a list"),
    "no tensors": (lambda state: {"epoch": 3}, InputError, r"keys \['epoch'\] without any"),
    "a LoRA apart": (
        lambda state: {**state, "visual.transformer.resblocks.0.mlp.c_fc.lora_A.default.weight": torch.ones(4, 4)},
        MismatchError,
        "adapter stored beside the weights.*merge_and_unload",
    ),
    "another width": (
        lambda state: {**state, "positional_embedding": torch.ones(9, 5)},
        MismatchError,
        "the architecture of these weights",
    ),
    "another model": (lambda state: {"weight": torch.ones(2)}, MismatchError, "Missing key"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str, name: str, tmp_path: Path) -> None:
    content, error, words = REFUSED[what]
    torch.save(content(tiny_model().state_dict()), tmp_path / "weights.pt")
    with pytest.raises(error, match=words) as caught:
        cliplens.load(name, str(tmp_path / "weights.pt"), device="cpu")
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>404", b"PK\x03\x04 cut", b"\x80\x02."])
def test_files_that_are_no_weights(suffix: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"weights{suffix}").write_bytes(content)
    with pytest.raises((DamagedError, InputError, UnsafeFileError), match=r"weights\.(pt|safetensors)"):
        read_tensors(tmp_path / f"weights{suffix}")


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    save_file(tiny_model().state_dict(), tmp_path / "whole.safetensors")
    torch.save(tiny_model().state_dict(), tmp_path / "whole.pt")
    for file in ("whole.safetensors", "whole.pt"):
        cut = tmp_path / f"cut{Path(file).suffix}"
        cut.write_bytes((tmp_path / file).read_bytes()[:-200])
        with pytest.raises(DamagedError, match="cut"):
            read_tensors(cut)
