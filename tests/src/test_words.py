"""Typing errors and values of the wrong kind: refused in words that name what was meant, on every way in."""

import inspect
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from typer.testing import CliRunner

import cliplens
from cliplens import api
from cliplens.cli import app
from cliplens.errors import CliplensError, InputError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.records import LatentTable
from cliplens.run.dictionary import training_config
from cliplens.settings import Settings, _check_kind


@pytest.fixture(scope="module")
def clip() -> HookedCLIP:
    return cliplens.load("world", device="cpu")


@pytest.mark.parametrize(
    ("typed", "meant"), [("rnu", "run"), ("exprot", "export"), ("fidelty", "fidelity"), ("streer", "steer")]
)
def test_a_mistyped_command_names_the_one_meant(typed: str, meant: str) -> None:
    shown = CliRunner().invoke(app, [typed], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'" in shown.output


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"cliplens {cliplens.__version__}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-B32", "'ViT-B-32'"),
        ("openai/clip-vit-base-patch32", "write hf:openai/clip-vit-base-patch32"),
        ("", "the name of a model"),
        (None, "the name of a model"),
        (7, "the name of a model"),
    ],
)
def test_models_that_are_not_there(name: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        inspect.unwrap(api.load)(name)  # type: ignore[arg-type]


def test_a_folder_as_a_model_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="write local-dir:"):
        cliplens.load(str(tmp_path))


def test_models_lists_what_is_near() -> None:
    shown = CliRunner().invoke(app, ["models", "ViT-B32"])
    assert isinstance(shown.exception, UnknownNameError)
    assert "'ViT-B-32'" in str(shown.exception)


def test_names_of_the_package_that_are_near() -> None:
    with pytest.raises(AttributeError, match="did you mean 'read_pairs'"):
        cliplens.read_pair  # noqa: B018


@pytest.mark.parametrize(
    "key", ["blocks.0.hook_resid_pst", "text.blocks.9.hook_resid_post", "resid_post", "", 3, None, ()]
)
def test_no_key_of_a_cache_is_a_bare_key_error(clip: HookedCLIP, key: object) -> None:
    pairs = cliplens.read_pairs("world:2")
    images, tokens = clip.batch(pairs)
    _, own = clip.text.run_with_cache(tokens)  # type: ignore[union-attr]
    _, joint = clip.run_with_cache(images, tokens)
    for cache in (own, joint):
        with pytest.raises(UnknownNameError):
            cache[key]
    assert len(repr(joint)) < 20_000


@pytest.mark.parametrize("given", [None, Path("a.png"), 3, "a.png"])
def test_what_is_no_picture_is_refused(clip: HookedCLIP, given: object) -> None:
    with pytest.raises(InputError, match="preprocessed images or PIL pictures"):
        clip.vision._preprocessed(given)  # type: ignore[union-attr]


@pytest.mark.parametrize("given", [[], None, [("a.png", "x")], ["a.png"], 3])
def test_what_are_no_pairs_is_refused(clip: HookedCLIP, given: object) -> None:
    with pytest.raises(InputError, match="Expected pairs, such as"):
        inspect.unwrap(HookedCLIP.batch)(clip, given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"pairs of cliplens\.read_pairs"):
        inspect.unwrap(api.activations)(clip, given, hook="hook_embedding")  # type: ignore[arg-type]


def test_one_pair_is_a_batch(clip: HookedCLIP) -> None:
    images, tokens = clip.batch(cliplens.read_pairs("world:2")[0])
    assert images is not None
    assert tokens is not None
    assert len(images) == len(tokens) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tower", "image"),
        ("dtype", "float8"),
        ("quoting", "x"),
        ("k", "4"),
        ("k", 2.5),
        ("k", True),
        ("lr", "fast"),
        ("centre", "no"),
        ("hook", 3),
        ("held_out", None),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match="--" + name.replace("_", "-")):
        _check_kind(name, value, get_type_hints(Settings)[name])


@pytest.mark.parametrize(
    ("name", "value"), [("k", np.int64(4)), ("lr", 1), ("k", None), ("quoting", None), ("seed", 0)]
)
def test_settings_of_the_right_kind_are_taken(name: str, value: object) -> None:
    _check_kind(name, value, get_type_hints(Settings)[name])


def test_a_penalty_the_architecture_has_not_is_refused_by_its_option() -> None:
    with pytest.raises(InputError, match=r"for --sparsity, but found batchtopk\. Fix: leave --sparsity out"):
        training_config(Settings(pairs="world:64", sparsity=1.0), 64)


def test_pairs_of_the_world_take_no_options_of_files() -> None:
    for wrong in ({"caption_column": "x"}, {"delimiter": ";"}, {"image_root": "/"}, {"background": "whit"}):
        with pytest.raises(CliplensError):
            cliplens.read_pairs("world:4", **wrong)  # type: ignore[arg-type]


def test_tables_of_latents_are_asked_in_words(tmp_path: Path) -> None:
    table = LatentTable({"mds": np.array([0.5, 0.1]), "name": np.array(["a", "b"], dtype=object)})
    for key in ("mdss", 1.5, None, slice(0, 1)):
        with pytest.raises(UnknownNameError):
            inspect.unwrap(LatentTable.__getitem__)(table, key)  # type: ignore[call-overload]
    for column, count in (("name", 10), ("mds", -1)):
        with pytest.raises(InputError, match="a column with one number per latent"):
            table.top(column, count)
    with pytest.raises(InputError, match="a table of latents at"):
        LatentTable.load(tmp_path / "latents.parquet")
    assert repr(table) == "LatentTable(2 latents, columns ['mds', 'name'])"
    assert table[np.int64(1)].number == 1
