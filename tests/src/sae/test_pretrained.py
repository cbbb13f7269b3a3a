"""Released dictionaries open by name: from a hub on this machine, through huggingface_hub's and SAELens' own code."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cliplens.errors import InputError, UnknownNameError
from cliplens.run.checks import hash_of_files
from cliplens.run.given import open_given
from cliplens.sae import Dictionary, located
from cliplens.settings import Settings
from support.dictionaries import D_IN, dictionary_of
from support.hub_server import Hub
from support.served import serving

PAGE = Path(__file__).parents[3] / "docs" / "dictionaries.md"
RELEASE = "jbloom/GPT2-Small-SAEs-Reformatted"


def released() -> dict[str, bytes]:
    """An early SAELens folder, as that release holds."""
    config = {
        "architecture": "standard",
        "d_in": 6,
        "d_sae": 9,
        "dtype": "float32",
        "device": "cpu",
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "hook_name": "blocks.8.hook_resid_pre",
        "normalize_activations": "none",
        "model_name": "gpt2-small",
    }
    state = {"W_enc": torch.randn(6, 9), "b_enc": torch.zeros(9), "W_dec": torch.randn(9, 6), "b_dec": torch.zeros(6)}
    return {
        "blocks.8.hook_resid_pre/cfg.json": json.dumps(config).encode(),
        "blocks.8.hook_resid_pre/sae_weights.safetensors": save(state),
    }


def visaebench(threshold: float) -> dict[str, bytes]:
    state = {"encoder.weight": torch.randn(9, 6), "encoder.bias": torch.zeros(9), "decoder.weight": torch.randn(9, 6)}
    config = {"activation": "batchtopk", "k": 2, "threshold": threshold, "input_dim": 6, "hidden_dim": 9}
    return {"model.safetensors": save(state), "config.json": json.dumps(config).encode()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    saved = dictionary_of("topk").save(tmp_path / "sae")
    export = {f"shared/{f.name}": f.read_bytes() for f in saved.iterdir() if f.is_file()}
    export |= {f"image/{f.name}": f.read_bytes() for f in (saved / "image").iterdir()}
    folders = {name: visaebench(t) for name, t in (("batchtopk_16x", 0.5), ("batchtopk_32x", 0.25))}
    two = {f"{folder}/{name}": content for folder, files in folders.items() for name, content in files.items()}
    repositories = {"owner/clip-dictionaries": two, "me/export": export, RELEASE: released(), "me/empty": {"a.md": b""}}
    with serving(Hub(repositories)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.mark.filterwarnings(r"ignore:\s*This SAE has non-empty model_from_pretrained_kwargs")
def test_the_script_in_the_docs(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = re.search(r"<!-- run by tests/src/sae/test_pretrained.py -->\n```python\n(.*?)```", PAGE.read_text(), re.S)
    assert script is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(script[1], str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["jumprelu 6 9", "blocks.8.hook_resid_pre"]
    assert float(Dictionary.load("clip-sae").sae.threshold[0]) == 0.5
    assert not any("batchtopk_32x" in path for path in hub.paths if "/resolve/" in path)


def test_an_exported_dictionary_opens_with_its_means(hub: Hub) -> None:
    dictionary = Dictionary.from_pretrained("hf:me/export")
    assert dictionary.d_in == D_IN
    assert dictionary.means is not None
    assert torch.equal(dictionary.means["image"], dictionary_of("topk").means["image"])


@pytest.mark.parametrize(
    ("name", "sae_id", "error", "message"),
    [
        ("hf:owner/clip-dictionaries", None, InputError, "2 dictionaries .batchtopk_16x, batchtopk_32x. and no name"),
        ("hf:owner/clip-dictionaries", "batchtopk_64x", UnknownNameError, "found 'batchtopk_64x'.*'batchtopk_16x'"),
        ("hf:owner/clip-dictionaries/batchtopk_64x", None, UnknownNameError, "found 'batchtopk_64x'"),
        ("hf:me/empty", None, InputError, "no weights in it"),
        ("hf:me/nothing", None, InputError, "from the Hugging Face hub.*RepositoryNotFoundError"),
        ("hf:nobody", None, InputError, "a repository as hf:owner/name"),
        ("hf:me/export", "image", InputError, "its copy that reads raw image activations"),
        ("gpt2-small-res-jb", "blocks.88", UnknownNameError, "dictionary in the release gpt2-small-res-jb"),
        ("gpt2-small-res-jb", None, InputError, "one of the 13 dictionaries in the release gpt2-small-res-jb"),
        ("gpt2-small-res-jb", "blocks.9.hook_resid_pre", InputError, "from the Hugging Face hub"),
        ("gpt2-small-res-jbb", "x", UnknownNameError, "SAELens release.*'gpt2-small-res-jb'"),
        ("owner/clip-dictionaries", "batchtopk_16x", InputError, "write hf:owner/clip-dictionaries"),
    ],
)
def test_errors_list_the_available_dictionaries(
    name: str, sae_id: str | None, error: type, message: str, hub: Hub
) -> None:
    with pytest.raises(error, match=message):
        Dictionary.from_pretrained(name, sae_id)


def test_a_run_scores_a_dictionary_of_the_hub(hub: Hub) -> None:
    asked = Settings(pairs="world:8", sae="hf:me/export", tower="vision")
    dictionary, settings = open_given(asked)
    assert dictionary.means is not None
    assert settings.sae == "hf:me/export"
    folder = located("hf:me/export")
    assert hash_of_files(folder) == hash_of_files(located(str(folder)))
    with pytest.raises(InputError, match="name one: hf:owner/clip-dictionaries/batchtopk_16x"):
        open_given(replace(asked, sae="hf:owner/clip-dictionaries"))


def test_local_paths_open_too(tmp_path: Path) -> None:
    dictionary = dictionary_of("topk")
    dictionary.save(tmp_path / "sae")
    assert Dictionary.from_pretrained(tmp_path / "sae").provenance == dictionary.provenance
    assert Dictionary.from_pretrained(str(tmp_path), "sae").d_sae == dictionary.d_sae
