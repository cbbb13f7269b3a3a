from pathlib import Path

import numpy as np
import pytest

from cliplens.errors import DamagedError, InputError
from cliplens.files import atomic_write, read_json, write_json
from cliplens.runfolder import RunFolder


def test_what_fails_half_way_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_json_takes_numpy_and_turns_nan_into_null(tmp_path: Path) -> None:
    write_json(
        tmp_path / "a.json", {"x": np.float64("nan"), "y": np.arange(2), "z": (1, Path("p")), "inf": float("inf")}
    )
    assert read_json(tmp_path / "a.json") == {"x": None, "y": [0, 1], "z": [1, "p"], "inf": None}


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"pairs": 1')
    with pytest.raises(DamagedError, match=r"Expected JSON in .*summary\.json"):
        read_json(tmp_path / "summary.json")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a run folder"):
        RunFolder.open(tmp_path)


def test_settings_come_back_without_what_was_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_settings({"asked": {"model": "world", "pretrained": None, "k": 8}})
    assert RunFolder.open(tmp_path).read_settings() == {"asked": {"model": "world", "k": 8}}
