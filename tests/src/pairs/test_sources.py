"""The larger sources: COCO, CC3M, tar shards, Hugging Face datasets. All of them local."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from cliplens.errors import PairsError
from cliplens.pairs import Decoder, RowAccount, from_dataset, open_image, read_pairs
from support.pictures import png


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def is_seed(pair, seed: int) -> bool:
    return np.array_equal(pixels(open_image(pair)), pixels(Image.open(io.BytesIO(png(seed=seed)))))


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_coco_captions_are_one_pair_each(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017" / "1.png").write_bytes(png(seed=1))
    found = {
        "images": [{"id": 10, "file_name": "1.png"}, {"id": 11, "file_name": "2.png"}],
        "annotations": [
            {"image_id": 10, "caption": "one"},
            {"image_id": 11, "caption": "x"},
            {"image_id": 10, "caption": "two"},
        ],
    }
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps(found))
    pairs = read_pairs(file)
    assert pairs.ids == ("1.png", "1.png#1", "2.png")
    assert pairs.captions == ["one", "two", "x"]
    assert is_seed(pairs[1], 1)
    assert read_pairs(file, image_root="/elsewhere")[0].source == Path("/elsewhere/1.png")


def test_other_json(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[{"file_name": "a.png", "text": "x"}]')
    assert read_pairs(tmp_path / "list.json")[0].source == tmp_path / "a.png"
    (tmp_path / "odd.json").write_text('{"a": 1}')
    with pytest.raises(PairsError, match=r"COCO captions.*found dict with the keys 'a' in"):
        read_pairs(tmp_path / "odd.json")


@pytest.mark.parametrize("names", [("00000000.jpg", "00000001.jpg"), ("cat.png", "dog.png"), ("0.webp", "1.webp")])
def test_cc3m_finds_its_files(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "cc.tsv").write_text('a "cat\thttp://x.org/cat.png?size=2\na dog\thttps://y.org/p/dog.png\n')
    for name in names:
        (tmp_path / name).write_bytes(b"")
    pairs = read_pairs(tmp_path / "cc.tsv")
    assert pairs.captions == ['a "cat', "a dog"]
    assert [p.source for p in pairs] == [tmp_path / n for n in names]


def test_cc3m_without_files(tmp_path: Path) -> None:
    (tmp_path / "cc.tsv").write_text("a cat\thttp://x.org/cat.png\n")
    with pytest.raises(PairsError, match=r"Expected images in .* named by the URL's last part"):
        read_pairs(tmp_path / "cc.tsv")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    tar_of(
        tmp_path / "s-00.tar",
        {
            "a/0.png": png(seed=0),
            "a/0.txt": b"null",
            "a/0.json": b'{"alt": "zero"}',
            "a/1.png": png(seed=1),
            "a/1.txt": b"one",
        },
    )
    tar_of(
        tmp_path / "s-01.tar",
        {"2.jpg": png(seed=2), "2.json": b'{"caption": "two"}', "3.txt": b"three", "4.png": png()},
    )
    tar_of(tmp_path / "s-03.tar", {"a/1.png": png(seed=9), "a/1.txt": b"again"})
    return tmp_path


@pytest.mark.parametrize("pattern", ["s-*.tar", "s-{00..03}.tar"])
def test_tar_shards(shards: Path, pattern: str) -> None:
    pairs = read_pairs(shards / pattern)
    assert pairs.ids == ("a/0", "a/1", "2", "3", "4", "a/1#1")
    assert pairs.captions == ["null", "one", "two", "three", None, "again"]
    assert [is_seed(pairs[i], s) for i, s in ((0, 0), (1, 1), (2, 2), (5, 9))] == [True] * 4
    assert pairs[3].source is None
    assert pairs.account() == RowAccount(6, 6, 0, 0, "sample")
    missing = [] if "*" in pattern else ["1 of 4 shards are missing: s-02.tar"]
    assert all(words in note for words, note in zip(missing, pairs.notes, strict=True))
    again = pickle.loads(pickle.dumps(Decoder(pairs, None, captions=True)))
    assert is_seed(again.pairs[5], 9)
    assert read_pairs(shards / pattern).sha256 == pairs.sha256


def test_a_key_of_the_json_beside(shards: Path) -> None:
    assert read_pairs(shards / "s-00.tar", caption_column="alt").captions == ["zero", None]


def test_a_cut_tar_loses_only_its_end(shards: Path) -> None:
    whole = (shards / "s-00.tar").read_bytes()
    (shards / "s-00.tar").write_bytes(whole[: whole.index(b"a/1.png") + 700])
    pairs = read_pairs(shards / "s-00.tar")
    assert pairs.ids == ("a/0", "a/1")
    assert is_seed(pairs[0], 0)
    with pytest.raises(PairsError, match=r"unreadable image"):
        open_image(pairs[1])


def test_files_that_are_not_tars_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"not a tar" * 200)
    with pytest.raises(PairsError, match=r"Expected a plain tar"):
        read_pairs(tmp_path / "a.tar")
    with pytest.raises(PairsError, match=r"found none. Fix: check the path"):
        read_pairs(tmp_path / "b-*.tar")


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    features = datasets.Features(
        {"picture": datasets.Image(), "caption": [datasets.Value("string")], "key": datasets.Value("string")}
    )
    images = [{"bytes": png(seed=i), "path": None} for i in range(3)]
    rows = {"picture": images, "caption": [["a", "b"], ["c"], []], "key": ["k0", "k1", "k2"]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_datasets_at_hand_on_disk_and_streamed(dataset: datasets.Dataset, tmp_path: Path) -> None:
    dataset.to_parquet(tmp_path / "set.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "set.parquet"), split="train", streaming=True)
    columns = ("picture", None, "key")
    found = [
        from_dataset(dataset, columns=columns),
        from_dataset(streamed, columns=columns),
        read_pairs(tmp_path / "set.parquet", image_column="picture", id_column="key"),
        read_pairs(tmp_path / "saved", image_column="picture", id_column="key"),
    ]
    for pairs in found:
        assert pairs.ids == ("k0", "k0#1", "k1", "k2")
        assert pairs.captions == ["a", "b", "c", None]
        assert is_seed(pairs[1], 0)
        assert is_seed(pairs[3], 2)
    assert from_dataset(streamed, columns=columns, limit=2).ids == ("k0", "k0#1", "k1")
    assert pickle.loads(pickle.dumps(found[3]))[2].caption == "c"


@pytest.mark.parametrize(("limit", "ids"), [("", ("k0", "k0#1", "k1", "k2")), ("?limit=2", ("k0", "k0#1", "k1"))])
def test_a_name_loads_whole_or_streams_its_first_rows(
    dataset: datasets.Dataset, tmp_path: Path, limit: str, ids: tuple[str, ...]
) -> None:
    (tmp_path / "named").mkdir()
    dataset.to_parquet(tmp_path / "named" / "train.parquet")
    pairs = read_pairs(f"hf:{tmp_path}/named@train{limit}", image_column="picture", id_column="key")
    assert pairs.ids == ids
    assert is_seed(pairs[2], 1)


def test_a_limit_given_twice_is_refused() -> None:
    with pytest.raises(PairsError, match=r"each part once.*limit=5&limit=6.*Fix"):
        read_pairs("hf:nobody/nothing@train?limit=5&limit=6")


def test_a_name_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PairsError, match=r"that `datasets` loads at hf:nobody/nothing@train.*hf:owner/name@split"):
        read_pairs("hf:nobody/nothing@train")
