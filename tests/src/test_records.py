from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplens.errors import InputError, UnknownNameError
from cliplens.records import Batch, Column, LatentTable, PairedActs, PairedCodes, SparseCodes


def _codes(seed: int, rows: int = 7, d_sae: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(torch.randn(rows, d_sae, generator=generator))


@given(st.integers(0, 1000))
def test_sparse_and_dense_codes_say_the_same(seed: int) -> None:
    dense = _codes(seed)
    sparse = SparseCodes.from_dense(dense)
    assert torch.equal(sparse.dense(), dense)
    order = sparse.rows * sparse.d_sae + sparse.latents
    assert bool((order.diff() > 0).all())
    assert bool((sparse.values != 0).all())


@given(st.integers(0, 1000), st.integers(1, 5))
def test_parts_are_joined_and_rows_are_ordered_as_in_dense_codes(seed: int, size: int) -> None:
    dense = _codes(seed)
    parts = [SparseCodes.from_dense(part) for part in dense.split(size)]
    joined, whole = SparseCodes.joined(parts, dense.shape[1]), SparseCodes.from_dense(dense)
    order = np.random.default_rng(seed).permutation(len(dense))
    for found, expected in ((joined, whole), (whole.ordered(order), SparseCodes.from_dense(dense[order]))):
        assert (found.n_rows, found.d_sae) == (expected.n_rows, expected.d_sae)
        for name in ("rows", "latents", "values"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


@given(st.integers(0, 1000))
def test_codes_of_some_latents_are_their_columns(seed: int) -> None:
    dense = _codes(seed)
    latents = np.flatnonzero(np.random.default_rng(seed).random(dense.shape[1]) < 0.5)
    found = SparseCodes.from_dense(dense).of_latents(latents)
    assert torch.equal(found.dense(), dense[:, torch.as_tensor(latents)])
    assert found.d_sae == len(latents)


@given(st.integers(0, 1000))
def test_joint_firings_list_every_place_where_either_fires(seed: int) -> None:
    image, text = _codes(seed), _codes(seed + 1)
    ids = tuple(str(i) for i in range(len(image)))
    joint = PairedCodes(ids, SparseCodes.from_dense(image), SparseCodes.from_dense(text)).joint
    fires = (image > 0) | (text > 0)
    order = torch.argsort(joint.rows * image.shape[1] + joint.latents)
    assert torch.equal(torch.stack([joint.rows, joint.latents])[:, order], fires.nonzero().T)
    assert torch.equal(joint.image[order], image[fires])
    assert torch.equal(joint.text[order], text[fires])


def test_a_batch_of_dense_codes_holds_these_codes() -> None:
    image, text = _codes(0), _codes(1)
    batch = Batch.from_dense(image, text, ids=[f"p{i}" for i in range(7)], targets={"red": np.ones(7, dtype=bool)})
    assert batch.ids == tuple(f"p{i}" for i in range(7))
    assert torch.equal(batch.codes.image.dense(), image)  # type: ignore[union-attr]
    assert torch.equal(batch.codes.text.dense(), text)  # type: ignore[union-attr]
    assert batch.targets["red"].all()
    assert Batch.from_dense(text=text).codes.image is None
    for wrong in (Batch.from_dense, lambda: Batch.from_dense(image, text[:3])):
        with pytest.raises(InputError, match="one row per id"):
            wrong()
    with pytest.raises(InputError, match=r"\[3, 7\] rows"):
        Batch.from_dense(image, ids=["a", "b", "c"])


def test_joint_firings_need_both_modalities() -> None:
    codes = PairedCodes(("a",), SparseCodes.from_dense(torch.ones(1, 2)), None)
    with pytest.raises(InputError, match=r"Expected codes of both modalities, but found codes of one\."):
        _ = codes.joint


def test_rows_out_of_step_are_refused() -> None:
    with pytest.raises(InputError, match="one row of text activations per id"):
        PairedActs(("a", "b"), None, torch.zeros(1, 3))


def test_a_table_is_loaded_with_its_column_descriptions(tmp_path: Path) -> None:
    table = LatentTable(
        {
            "latent": np.arange(3),
            "mds": np.array([0.1, np.nan, 0.9]),
            "modality": np.array(["TextD", "dead", "ImgD"]),
            "name": np.array(["a", None, "c"], dtype=object),
            "alive": np.array([True, False, True]),
        },
        {"mds": Column("mds", "where it fires", range="[0, 1]", nan="never fires", source="Yan et al.")},
    )
    table.save(tmp_path / "latents.parquet")
    back = LatentTable.load(tmp_path / "latents.parquet")
    assert list(back) == list(table)
    np.testing.assert_array_equal(back["mds"], table["mds"])
    assert back["name"].tolist() == ["a", None, "c"]
    assert back["alive"].tolist() == [True, False, True]
    assert back["modality"].tolist() == ["TextD", "dead", "ImgD"]
    assert back.schema["mds"] == table.schema["mds"]


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match="columns of one length"):
        LatentTable({"a": np.zeros(2), "b": np.zeros(3)})


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'mds_low'"):
        LatentTable({"mds_low": np.zeros(2)})["mds_lo"]


def test_the_old_name_of_position_activations_still_works() -> None:
    from cliplens import records

    with pytest.warns(DeprecationWarning, match="PositionActivations"):
        assert records.Heat is records.PositionActivations  # type: ignore[attr-defined]


def test_no_parts_are_joined_to_no_rows() -> None:
    assert SparseCodes.joined([], 5).dense().shape == (0, 5)
