"""Objects show themselves in one line, tables become data frames, and missing attributes name the nearest."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cliplens
from cliplens.errors import CliplensError
from cliplens.records import Column, LatentTable
from support.tiny_dictionaries import tiny_dictionary


@pytest.fixture(scope="module")
def clip() -> Any:
    return cliplens.load("world", device="cpu")


@pytest.fixture(scope="module")
def objects(clip: Any) -> dict[str, Any]:
    pairs = cliplens.read_pairs("world:1200")
    sites = ("vision.hook_embedding", "text.hook_embedding")
    return {
        "clip": clip,
        "vision": clip.vision,
        "pairs": pairs,
        "provider": cliplens.activations(clip, pairs[:40], batch_size=16),
        "dictionary": tiny_dictionary(64, 96, sites=sites, means=True),
        "table": LatentTable({"mds": np.array([0.5, 0.1])}),
        "cfg": clip.cfg,
    }


def test_each_shows_what_it_is(objects: dict[str, Any]) -> None:
    assert repr(objects["pairs"]) == "Pairs('world:1200', 1,200 pairs of images and captions)"
    assert repr(objects["provider"]) == (
        "Provider(80 rows of world: vision.hook_embedding + text.hook_embedding, d_in 64, centred, batches of 16,"
        " epoch 0, 0 rows given)"
    )
    shown = repr(objects["dictionary"])
    assert shown.startswith("Dictionary(")
    assert "96 latents, d_in 64, means of image and text subtracted, trained on" in shown
    lines = repr(objects["clip"]).splitlines()
    assert lines[0] == "HookedCLIP('world', torch.float32, cpu"
    assert lines[1].startswith("  vision: ")
    assert "3 blocks, " in lines[1]
    assert "images 48x48" in lines[1]
    assert all(len(repr(one)) < 400 for name, one in objects.items() if name != "cfg")


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("clip", "blocks", r"use clip\.vision\.blocks or clip\.text\.blocks"),
        ("clip", "encode_images", "use encode_image"),
        ("vision", "W_QQ", "use W_Q"),
        ("pairs", "caption", "captions"),
        ("provider", "mean", "means"),
        ("dictionary", "dsae", "d_sae"),
        ("table", "mds", r"use table\['mds'\]"),
        ("table", "to_panda", "to_pandas"),
    ],
)
def test_a_missing_attribute_names_the_nearest(objects: dict[str, Any], name: str, wrong: str, told: str) -> None:
    with pytest.raises(AttributeError, match=told) as raised:
        getattr(objects[name], wrong)
    assert isinstance(raised.value, CliplensError)
    assert not hasattr(objects[name], "_private")
    assert not hasattr(objects[name], "nothing_of_the_kind")


def test_objects_are_copied_and_pickled_as_before(objects: dict[str, Any]) -> None:
    for name in ("table", "cfg"):
        again = pickle.loads(pickle.dumps(objects[name]))
        assert type(again) is type(objects[name])
    assert copy.deepcopy(objects["dictionary"]).d_sae == 96
    assert len(copy.copy(objects["pairs"])) == 1200


def test_a_table_becomes_a_data_frame(tmp_path: Path) -> None:
    about = Column("mds", "Share of the code that is of images.")
    columns = {"mds": np.array([0.5, 0.1]), "near": np.arange(4).reshape(2, 2), "name": np.array(["a", "b"], object)}
    LatentTable(columns, {"mds": about}).save(tmp_path / "latents.parquet")
    frame = LatentTable.load(tmp_path / "latents.parquet").to_pandas()
    assert list(frame.columns) == ["mds", "near", "name"]
    assert frame.index.name == "latent"
    assert list(frame["near"].iloc[1]) == [2, 3]
    assert frame.attrs["mds"] == about.about
    assert frame.sort_values("mds").index.tolist() == [1, 0]
    top = LatentTable(columns).top("mds", 1, lowest=True).to_pandas()
    assert top.index.tolist() == [1]
    assert LatentTable({}).to_pandas().empty
