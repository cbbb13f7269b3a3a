"""The judge that looks its embeddings up in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cliplens.errors import DamagedError, InputError, MismatchError
from cliplens_plugins.monosemanticity import PrecomputedJudge


def judge(tmp_path: Path, **arrays: Any) -> PrecomputedJudge:
    np.savez(tmp_path / "judged.npz", **arrays)
    return PrecomputedJudge(str(tmp_path / "judged.npz"))


def test_embeddings_come_by_id_with_norm_one_in_double(tmp_path: Path) -> None:
    rows = np.array([[3.0, 4.0], [0.0, 2.0], [-5.0, 12.0]], dtype=np.float32)
    made = judge(tmp_path, ids=np.array(["a", "b", "c"]), image=rows, text=rows[::-1])
    found = made.embed(None, None, ["c", "a", "c"])
    assert found.ids == ("c", "a", "c")
    assert found.image is not None
    assert found.text is not None
    expected = torch.tensor([[-5 / 13, 12 / 13], [0.6, 0.8], [-5 / 13, 12 / 13]], dtype=torch.float64)
    torch.testing.assert_close(found.image, expected)
    torch.testing.assert_close(found.text[1], expected[0])
    assert made.embed(None, None, []).image.shape == (0, 2)  # type: ignore[union-attr]
    assert not made.embeds_words


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_modality_is_enough(side: str, tmp_path: Path) -> None:
    found = judge(tmp_path, ids=np.array([7, 8]), **{side: np.ones((2, 1))}).embed(None, None, ["8"])
    assert [getattr(found, m) is not None for m in ("image", "text")] == [side == "image", side == "text"]


def test_the_file_is_read_once(tmp_path: Path) -> None:
    made = judge(tmp_path, ids=np.array(["a"]), image=np.ones((1, 2)))
    first = made.embed(None, None, ["a"])
    (tmp_path / "judged.npz").unlink()
    assert torch.equal(made.embed(None, None, ["a"]).image, first.image)  # type: ignore[arg-type]


def test_pairs_without_an_embedding_are_named_and_counted(tmp_path: Path) -> None:
    made = judge(tmp_path, ids=np.array(["a"]), image=np.ones((1, 2)))
    with pytest.raises(MismatchError, match="no embedding of 'b' and 1 other pairs"):
        made.embed(None, None, ["a", "b", "c"])
    with pytest.raises(MismatchError, match="no embedding of 'c' and 0 other pairs"):
        made.embed(None, None, ["c"])


@pytest.mark.parametrize("arrays", [{"ids": np.array(["a"])}, {"image": np.ones((1, 2)), "text": np.ones((1, 2))}])
def test_a_file_needs_ids_and_a_modality(arrays: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"'ids' and 'image' or 'text' in .*found the arrays .*{min(arrays)}"):
        judge(tmp_path, **arrays).embed(None, None, ["a"])


def test_a_path_is_asked_for_and_pickles_are_refused(tmp_path: Path) -> None:
    for source in ("", str(tmp_path / "none.npz")):
        with pytest.raises(InputError, match=r"the path of an .npz file of embeddings, but found '"):
            PrecomputedJudge(source).embed(None, None, ["a"])
    with pytest.raises(DamagedError, match=r"an .npz file of arrays in .*allow_pickle"):
        judge(tmp_path, ids=np.array([None]), image=np.ones((1, 2))).embed(None, None, ["a"])
    (tmp_path / "cut.npz").write_bytes(b"PK")
    with pytest.raises(DamagedError):
        PrecomputedJudge(str(tmp_path / "cut.npz")).embed(None, None, ["a"])
