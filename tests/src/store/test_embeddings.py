"""Embeddings in place of a model: every format gives the same rows, and what does not fit is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from cliplens.errors import InputError, MismatchError, PairsError
from cliplens.pairs import Pairs, Quarantine
from cliplens.sites import Site
from cliplens.store import Embeddings, harvest, read_embeddings
from cliplens.store.embedding_files import _by_file

N, D = 30, 6
IMAGE, TEXT = (np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32) for seed in (0, 1))
BOTH = [Site("vision", "hook_embedding"), Site("text", "hook_embedding")]


def npy(folder: Path) -> list[Path]:
    np.save(folder / "image.npy", IMAGE)
    np.save(folder / "text.npy", TEXT)
    return [folder / "image.npy", folder / "text.npy"]


def npy_by_order(folder: Path) -> list[Path]:
    np.save(folder / "a.npy", IMAGE)
    np.save(folder / "b.npy", TEXT.astype(np.float64))
    return [folder / "a.npy", folder / "b.npy"]


def npz(folder: Path) -> list[Path]:
    np.savez(folder / "set.npz", image=IMAGE, text=TEXT, image_random=TEXT, ids=np.array([f"p{n}" for n in range(N)]))
    return [folder / "set.npz"]


def safetensors(folder: Path) -> list[Path]:
    save_file({"image_embeds": IMAGE, "text_embeds": TEXT}, folder / "set.safetensors")
    return [folder / "set.safetensors"]


def parquet(folder: Path) -> list[Path]:
    table = pa.table({"image": list(IMAGE), "text": list(TEXT), "id": [f"p{n}" for n in range(N)]})
    pq.write_table(table, folder / "set.parquet")
    return [folder / "set.parquet"]


@pytest.mark.parametrize("kind", [npy, npy_by_order, npz, safetensors, parquet])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: object) -> None:
    found = read_embeddings(kind(tmp_path))  # type: ignore[operator]
    np.testing.assert_array_equal(found.image_rows, IMAGE)
    np.testing.assert_array_equal(found.text_rows, TEXT)
    assert found.ids in (None, tuple(f"p{n}" for n in range(N)))


def test_a_parquet_of_plain_columns_has_a_row_per_pair(tmp_path: Path) -> None:
    for name, rows in (("image", IMAGE), ("text", TEXT)):
        columns = {f"d{n}": rows[:, n] for n in range(D)}
        pq.write_table(pa.table({**columns, "id": [f"p{n}" for n in range(N)]}), tmp_path / f"{name}.parquet")
    found = read_embeddings([tmp_path / "image.parquet", tmp_path / "text.parquet"])
    np.testing.assert_array_equal(found.image_rows, IMAGE)
    np.testing.assert_array_equal(found.text_rows, TEXT)
    assert found.ids == tuple(f"p{n}" for n in range(N))


def test_one_row_per_sample_may_have_an_axis_of_its_own_and_several_may_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", image=IMAGE[:, None], text=TEXT)
    np.testing.assert_array_equal(read_embeddings([tmp_path / "set.npz"]).image_rows, IMAGE)
    np.savez(tmp_path / "set.npz", image=np.stack([IMAGE, IMAGE], axis=1), text=TEXT)
    with pytest.raises(InputError, match=rf"Expected image embeddings as numbers .* of shape \({N}, 2, {D}\)"):
        read_embeddings([tmp_path / "set.npz"])


def test_an_array_named_for_one_modality_is_never_taken_for_the_other() -> None:
    assert _by_file({"image_rows": IMAGE}, "image") == "image_rows"
    assert _by_file({"image_rows": IMAGE}, "text") is None
    assert _by_file({"image_rows": IMAGE, "image_text": TEXT}, "text") == "image_text"
    assert _by_file({"image_rows": IMAGE, "rows": TEXT}, "text") == "rows"


def test_one_modality_is_enough(tmp_path: Path) -> None:
    paths = npy(tmp_path)
    assert read_embeddings(paths[:1], ["image"]).text_rows is None
    np.testing.assert_array_equal(read_embeddings(paths, ["text"]).text_rows, TEXT)


def test_a_cache_of_embeddings_holds_them_in_step_and_sets_nan_aside(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[7, 2] = np.nan
    embeddings = Embeddings(image, TEXT)
    pairs = Pairs([f"p{n}" for n in range(N)], None, [f"caption {n}" for n in range(N)])
    held = Quarantine(max_bad=0.5)
    cache = harvest(embeddings, pairs, BOTH, tmp_path / "c", dtype="float32", forward_batch=8, quarantine=held)
    assert held.reasons == {"p7": "nan or inf in its embedding"}
    (acts,) = cache.batches(image=BOTH[0], text=BOTH[1])
    rows = [int(i[1:]) for i in acts.ids]
    assert sorted(rows) == [n for n in range(N) if n != 7]
    assert torch.equal(acts.image, torch.from_numpy(IMAGE[rows]))
    assert torch.equal(acts.text, torch.from_numpy(TEXT[rows]))
    assert cache.plan.model.name == "embeddings"
    assert cache.plan.pictures is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_released_embeddings_keep_their_identity_and_read_as_nan(dtype: type, tmp_path: Path) -> None:
    embeddings = Embeddings(IMAGE.astype(dtype), TEXT.astype(dtype))
    expected = Embeddings(IMAGE.astype(dtype), TEXT.astype(dtype)).identity
    embeddings.release()
    assert embeddings.identity == expected
    assert (len(embeddings), embeddings.image_rows.shape, embeddings.image_rows.dtype) == (N, IMAGE.shape, dtype)
    assert embeddings.text_rows.strides == (0, 0)
    pairs = Pairs([f"p{n}" for n in range(N)], None, [f"c{n}" for n in range(N)])
    with pytest.raises(PairsError, match="nan or inf in its embedding"):
        harvest(embeddings, pairs, BOTH, tmp_path / "c")
    only = Embeddings(None, TEXT.astype(dtype))
    only.release()
    assert only.image_rows is None


def test_half_precision_is_held_as_it_is_and_read_as_float32_with_the_same_identity(tmp_path: Path) -> None:
    half = {"image": IMAGE.astype(np.float16), "text": TEXT.astype(np.float16)}
    np.savez(tmp_path / "half.npz", **half)
    found = read_embeddings([tmp_path / "half.npz"])
    assert found.image_rows.dtype == found.text_rows.dtype == np.float16
    whole = Embeddings(half["image"].astype(np.float32), half["text"].astype(np.float32))
    assert found.identity.weights_sha256 == whole.identity.weights_sha256
    pairs = Pairs([f"p{n}" for n in range(N)], None, [f"c{n}" for n in range(N)])
    rows = [
        next(harvest(e, pairs, BOTH, tmp_path / name).batches(image=BOTH[0], text=BOTH[1], batch_size=N))
        for name, e in (("a", found), ("b", whole))
    ]
    assert rows[0].image.dtype == torch.float32
    assert torch.equal(rows[0].image, rows[1].image)
    assert torch.equal(rows[0].text, rows[1].text)


def test_embeddings_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    paths = npy(tmp_path)
    np.save(tmp_path / "short.npy", TEXT[:-1])
    np.save(tmp_path / "wide.npy", np.zeros((N, D + 1)))
    np.save(tmp_path / "flat.npy", np.zeros(N))
    np.save(tmp_path / "object.npy", np.array([{}] * N, dtype=object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array([["a"] * D] * N))
    (tmp_path / "cut.npy").write_bytes(paths[0].read_bytes()[:200])
    for name, error, words in (
        ("short.npy", MismatchError, r"Expected one image embedding per text embedding.*30 of image, 29 of text"),
        ("wide.npy", MismatchError, r"with the same width.*image: 6, text: 7"),
        ("flat.npy", InputError, r"Expected text embeddings as numbers \[pair, d\].*shape \(30,\)"),
        ("object.npy", InputError, r"Expected embeddings that can be read at .*object\.npy"),
        ("words.npy", InputError, r"Expected text embeddings as numbers"),
        ("cut.npy", InputError, r"Expected embeddings that can be read at .*cut\.npy"),
        ("none.npy", InputError, r"Expected embeddings that can be read at .*none\.npy"),
        ("a.txt", InputError, r"Expected embeddings as npy, npz, parquet or safetensors"),
    ):
        with pytest.raises(error, match=words):
            read_embeddings([paths[0], tmp_path / name])
    with pytest.raises(InputError, match=r"Expected embeddings of text in"):
        read_embeddings(paths[:1])
    embeddings = Embeddings(IMAGE, TEXT)
    with pytest.raises(MismatchError, match=r"Expected one pair per row of the embeddings \(30\), but found 2 pairs"):
        harvest(embeddings, Pairs("ab", None, ["x", "y"]), BOTH, tmp_path / "c")
    with pytest.raises(InputError, match=r"Expected sites of the embeddings"):
        harvest(embeddings, Pairs("ab", None, ["x", "y"]), [Site("vision", "hook_projected")], tmp_path / "c")


def test_files_of_one_name_are_images_and_then_captions(tmp_path: Path) -> None:
    for folder, rows in (("a", IMAGE), ("b", TEXT)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "image.npy", rows)
    found = read_embeddings([tmp_path / "a" / "image.npy", tmp_path / "b" / "image.npy"])
    np.testing.assert_array_equal(found.image_rows, IMAGE)
    np.testing.assert_array_equal(found.text_rows, TEXT)
    assert len(found.notes) == 2
    alone = read_embeddings([tmp_path / "a" / "image.npy", tmp_path / "b" / "image.npy"], ["image"])
    assert "Embeddings not read" in alone.notes[-1]


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", foo=IMAGE, bar=TEXT)
    assert "which does not say so by its name" in read_embeddings([tmp_path / "odd.npz"]).notes[0]
    np.savez(tmp_path / "more.npz", image=IMAGE, text=TEXT, other=TEXT)
    assert read_embeddings([tmp_path / "more.npz"]).notes == ("more.npz: not read: other",)
    with pytest.raises(InputError, match="Expected one or two files of embeddings, but found 3"):
        read_embeddings([tmp_path / "more.npz"] * 3)


def test_a_missing_row_of_a_parquet_is_set_aside_and_a_short_one_refused(tmp_path: Path) -> None:
    lists = [list(map(float, row)) for row in IMAGE]
    pq.write_table(pa.table({"image": [*lists[:-1], None], "text": list(TEXT)}), tmp_path / "set.parquet")
    found = read_embeddings([tmp_path / "set.parquet"])
    assert np.isnan(found.image_rows).all(1).tolist() == [False] * (N - 1) + [True]
    pq.write_table(pa.table({"image": [None, None, *lists[2:]], "text": list(TEXT)}), tmp_path / "set.parquet")
    found = read_embeddings([tmp_path / "set.parquet"])
    assert np.isnan(found.image_rows).all(1).tolist() == [True] * 2 + [False] * (N - 2)
    np.testing.assert_array_equal(found.image_rows[2:], IMAGE[2:])
    pq.write_table(pa.table({"image": [*lists[:-1], [1.0]], "text": list(TEXT)}), tmp_path / "set.parquet")
    with pytest.raises(InputError, match=rf"found {D} numbers in the first row and 1 in row {N - 1}"):
        read_embeddings([tmp_path / "set.parquet"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", None, "found no such file"),
        ("a.npy", b"hello", "holds Python objects or is no array"),
        ("a.pt", b"x", "numpy.save"),
    ],
)
def test_files_that_are_no_arrays_say_what_to_do(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_embeddings([tmp_path / name])


def test_pairs_whose_caption_is_none_are_set_aside(tmp_path: Path) -> None:
    captions = [f"caption {n}" for n in range(N)]
    captions[3], captions[5] = "", "  "
    pairs = Pairs([f"p{n}" for n in range(N)], None, captions, bad_captions={7: "not valid"})
    aside = Quarantine(max_bad=1.0)
    cache = harvest(read_embeddings(npy(tmp_path)), pairs, BOTH, tmp_path / "cache", quarantine=aside)
    assert (len(cache), aside.reasons) == (N - 3, {"p3": "empty caption", "p5": "empty caption", "p7": "not valid"})
    images = harvest(read_embeddings(npy(tmp_path)), pairs, BOTH[:1], tmp_path / "images")
    assert len(images) == N
