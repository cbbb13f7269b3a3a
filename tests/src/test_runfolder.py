from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cliplens.cli import app
from cliplens.errors import DamagedError, InputError
from cliplens.files import atomic_folder, atomic_write, check_room, make_folder, read_json, write_json
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


def test_a_place_that_cannot_be_written_is_named_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "folder" / "x"
    for write in (
        lambda: check_room(inside, 0),
        lambda: make_folder(inside),
        lambda: atomic_folder(inside).__enter__(),
    ):
        with pytest.raises(InputError, match="a place that can be written at"):
            write()
    for path in (tmp_path / "file", tmp_path / "new" / "folder", tmp_path):
        check_room(path, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "the check leaves nothing"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--model", "world", "--pairs", "world:64", "--out"],
        ["demo", "--out"],
        ["harvest", "--model", "world", "--pairs", "world:64", "--out"],
    ],
    ids=lambda words: words[0],
)
def test_commands_refuse_an_out_that_cannot_be_written(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [*command, str(tmp_path / "file" / "run")])
    assert isinstance(done.exception, InputError)
    assert "a place that can be written at" in str(done.exception)
