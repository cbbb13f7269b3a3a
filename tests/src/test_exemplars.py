"""Exemplars survive the disk, whatever their pairs are called, and are there whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cliplens.errors import DamagedError
from cliplens.exemplars import (
    POSITIONS,
    TABLE,
    THUMBNAIL,
    TINY,
    load_exemplars,
    load_positions,
    save_exemplars,
    save_positions,
)
from cliplens.records import Exemplars, Pair, PositionActivations
from cliplens.sites import Modality

NASTY = ("../../etc/passwd", "a/b\\c", "CON", "name", "NAME", "x" * 400, "späßig 😀", "", "a\nb", "%2e%2e")


def picture(side: int = 20, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def exemplars(modality: Modality, pairs: list[Pair], latents: int = 4, top: int = 3, seed: int = 0) -> Exemplars:
    rng = np.random.default_rng(seed)
    at = np.stack([rng.permutation(len(pairs))[:top] for _ in range(latents)])
    at[1, 1:] = -1
    values = np.where(at >= 0, -np.sort(-rng.random((latents, top)), axis=1), 0.0)
    return Exemplars(modality, tuple(pairs), at, values)


def same(left: Exemplars, right: Exemplars) -> None:
    np.testing.assert_array_equal(left.values, right.values)
    for k in range(len(left.at)):
        assert [(p.id, p.caption, v) for p, v in left.of(k)] == [(p.id, p.caption, v) for p, v in right.of(k)]


def test_both_modalities_come_back(tmp_path: Path) -> None:
    pairs = [Pair(i, picture(seed=n), f"caption {n}") for n, i in enumerate(NASTY)]
    images, texts = exemplars("image", pairs), exemplars("text", pairs, seed=1)
    save_exemplars(tmp_path, images, texts)
    loaded_images, loaded_texts = load_exemplars(tmp_path)
    assert loaded_images is not None
    assert loaded_texts is not None
    same(images, loaded_images)
    same(texts, loaded_texts)
    assert all(isinstance(p.source, Path) for p in loaded_texts.pairs)


def test_tiny_pictures_keep_every_pixel(tmp_path: Path) -> None:
    pairs = [Pair(i, picture(seed=n), None) for n, i in enumerate(NASTY)]
    save_exemplars(tmp_path, exemplars("image", pairs), None)
    loaded, nothing = load_exemplars(tmp_path)
    assert nothing is None
    assert loaded is not None
    originals = {p.id: p.image for p in pairs}
    for pair in loaded.pairs:
        assert isinstance(pair.source, Path)
        assert pair.source.suffix == ".webp"
        np.testing.assert_array_equal(np.asarray(Image.open(pair.source)), np.asarray(originals[pair.id]))


def test_large_pictures_become_small_webp(tmp_path: Path) -> None:
    pairs = [Pair(str(n), picture(TINY + 300, seed=n), None) for n in range(3)]
    save_exemplars(tmp_path, exemplars("image", pairs), None)
    for file in (tmp_path / "images").iterdir():
        assert file.suffix == ".webp"
        with Image.open(file) as small:
            assert max(small.size) == THUMBNAIL


def test_file_names_stay_inside_the_folder_and_are_plain(tmp_path: Path) -> None:
    pairs = [Pair(i, picture(seed=n), None) for n, i in enumerate(NASTY)]
    folder = tmp_path / "run" / "exemplars"
    save_exemplars(folder, Exemplars("image", tuple(pairs), np.arange(10)[None], np.ones((1, 10))), None)
    names = [f.name for f in (folder / "images").iterdir()]
    assert len({n.casefold() for n in names}) == len(NASTY)
    assert all(n.isascii() and len(n) < 100 and "/" not in n for n in names)
    assert {p.name for p in tmp_path.rglob("*")} == {"run", "exemplars", "images", "exemplars.parquet", *names}


def test_a_missing_picture_loses_only_its_thumbnail(tmp_path: Path) -> None:
    pairs = [Pair("there", picture(), "a"), Pair("gone", tmp_path / "gone.png", "b"), Pair("none", None, "c")]
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pairs.append(Pair("cut", tmp_path / "cut.png", "d"))
    save_exemplars(tmp_path / "e", Exemplars("image", tuple(pairs), np.arange(4)[None], np.ones((1, 4))), None)
    loaded, _ = load_exemplars(tmp_path / "e")
    assert loaded is not None
    assert [p.source is not None for p, _ in loaded.of(0)] == [True, False, False, False]
    assert [p.caption for p, _ in loaded.of(0)] == ["a", "b", "c", "d"]


def test_saving_again_leaves_nothing_of_the_first_time(tmp_path: Path) -> None:
    save_exemplars(tmp_path, exemplars("image", [Pair(f"a{n}", picture(seed=n), None) for n in range(5)]), None)
    again = [Pair(f"b{n}", picture(seed=n), None) for n in range(4)]
    save_exemplars(tmp_path, exemplars("image", again), None)
    assert all(f.name.startswith("b") for f in (tmp_path / "images").iterdir())


def test_a_run_in_which_nothing_fired_is_no_damage(tmp_path: Path) -> None:
    silent = Exemplars("image", (), np.full((3, 2), -1), np.zeros((3, 2)))
    save_exemplars(tmp_path, silent, None)
    loaded, _ = load_exemplars(tmp_path)
    assert loaded is not None
    assert loaded.at.shape == (3, 2)
    assert loaded.of(0) == []


def test_a_cut_table_is_called_damaged(tmp_path: Path) -> None:
    save_exemplars(tmp_path, exemplars("image", [Pair(str(n), picture(), None) for n in range(5)]), None)
    table = tmp_path / "exemplars.parquet"
    table.write_bytes(table.read_bytes()[:-40])
    with pytest.raises(DamagedError, match=r"Expected the exemplars of a run in .* Fix: score the run again"):
        load_exemplars(tmp_path)


def test_a_missing_thumbnail_is_named(tmp_path: Path) -> None:
    save_exemplars(tmp_path, exemplars("image", [Pair(str(n), picture(seed=n), None) for n in range(5)]), None)
    gone = sorted((tmp_path / "images").iterdir())[0]
    gone.unlink()
    with pytest.raises(DamagedError, match=gone.name):
        load_exemplars(tmp_path)


def test_a_table_cannot_make_the_reader_leave_the_folder(tmp_path: Path) -> None:
    save_exemplars(tmp_path, exemplars("image", [Pair(str(n), picture(), None) for n in range(5)]), None)
    table = pq.read_table(tmp_path / "exemplars.parquet")
    away = ["../../outside.png"] * table.num_rows
    pq.write_table(table.set_column(6, "image", [away]), tmp_path / "exemplars.parquet")
    with pytest.raises(DamagedError, match=r"images/outside\.png"):
        load_exemplars(tmp_path)


def of_others(folder: Path, name: str, values: list[Any], kind: pa.DataType) -> None:
    """Save exemplars, and give a column other values, as another program could."""
    save_exemplars(folder, exemplars("image", [Pair(str(n), None, None) for n in range(5)]), None)
    table = pq.read_table(folder / TABLE)
    column = pa.array((values * len(table))[: len(table)], kind)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), folder / TABLE)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        *((name, [1], pa.int64()) for name in ("id", "modality", "caption", "image")),
        *((name, [None], pa.null()) for name in ("id", "modality", "latent", "rank", "value")),
        *((name, [None, "1"], pa.string()) for name in ("id", "modality")),
        ("id", [b"a"], pa.binary()),
        ("id", [{"a": 1}], pa.struct([("a", pa.int64())])),
        ("caption", [["x"]], pa.list_(pa.string())),
        *((name, ["0"], pa.string()) for name in ("latent", "value")),
        *((name, [True, False], pa.bool_()) for name in ("latent", "rank", "value")),
        *((name, [0.0], pa.float64()) for name in ("latent", "rank")),
        *((name, [-1], pa.int32()) for name in ("latent", "rank")),
        *((name, [2**40], pa.int64()) for name in ("latent", "rank")),
        *(("image", [text], pa.string()) for text in ("..", "", "x" * 5000)),
    ],
)
def test_a_column_of_another_kind_is_damage(name: str, values: list[Any], kind: pa.DataType, tmp_path: Path) -> None:
    of_others(tmp_path, name, values, kind)
    with pytest.raises(DamagedError):
        load_exemplars(tmp_path)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_other_encodings_of_a_column_are_read(kind: pa.DataType, tmp_path: Path) -> None:
    of_others(tmp_path, "id", ["a", "b"], kind)
    of_others(tmp_path / "wide", "latent", [0], pa.uint64())
    images, _ = load_exemplars(tmp_path)
    assert images is not None
    assert {p.id for p in images.pairs} == {"a", "b"}
    assert load_exemplars(tmp_path / "wide")[0] is not None


@pytest.mark.parametrize("text", ["2", "2x2x2", "-2x2", "2x", "99999999x99999999", "9" * 5000 + "x1", "\xff"])
def test_a_shape_that_no_run_has_is_damage(text: str, tmp_path: Path) -> None:
    save_exemplars(tmp_path, exemplars("image", [Pair(str(n), None, None) for n in range(5)]), None)
    table = pq.read_table(tmp_path / TABLE).replace_schema_metadata({b"image_shape": text.encode("latin1")})
    pq.write_table(table, tmp_path / TABLE)
    with pytest.raises(DamagedError, match="a number of latents and one of ranks"):
        load_exemplars(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"), [("latent", [None]), ("values", [None]), ("modality", [None]), ("starts", [[1, 2, 3]])]
)
def test_positions_of_another_kind_are_damage(name: str, values: list[Any], tmp_path: Path) -> None:
    save_positions(tmp_path, {("text", 0, 0): PositionActivations(np.ones(2), None, ((0, 1), (1, 2)))})
    assert len(load_positions(tmp_path)) == 1
    table = pq.read_table(tmp_path / POSITIONS)
    column = pa.array(values, table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), tmp_path / POSITIONS)
    with pytest.raises(DamagedError):
        load_positions(tmp_path)
