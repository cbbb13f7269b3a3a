"""Folders with one subfolder of pictures per class."""

from pathlib import Path

import pytest
from PIL import Image

from cliplens.errors import InputError
from cliplens.studies import read_class_folders


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_pictures_get_the_class_of_their_folder(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/deep/a.jpg", "fire_truck/1.png"):
        picture(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("x")
    picture(tmp_path / ".hidden" / "a.png")
    (tmp_path / "empty").mkdir()
    found = read_class_folders(tmp_path)
    assert found.classes == ("dog", "fire truck")
    assert found.labels.tolist() == [0, 0, 1]
    assert [path.name for path in found.paths] == ["b.png", "a.jpg", "1.png"]


def test_one_class_or_no_folder_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "a.png")
    with pytest.raises(InputError, match="Fix: put the pictures of each class"):
        read_class_folders(tmp_path)
    with pytest.raises(InputError, match="Fix: pass the path"):
        read_class_folders(tmp_path / "nowhere")
