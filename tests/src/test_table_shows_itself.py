"""The latent table in a notebook: rows, tops and tables show themselves, and escape what they hold."""

import numpy as np
import pytest

from cliplens.errors import UnknownNameError
from cliplens.records import Column, LatentTable


@pytest.fixture
def table() -> LatentTable:
    columns = {
        "mds": np.array([0.1, np.nan, 0.9, 0.5]),
        "name": np.array(["red", "unnamed", "<script>alert(1)</script>", "blue"], dtype=object),
    }
    return LatentTable(columns, {"mds": Column("mds", 'Share of "images" <here>.')})


def test_a_row_is_a_latent(table: LatentTable) -> None:
    assert table[2]["mds"] == 0.9
    assert table[-1].number == 3
    with pytest.raises(IndexError, match="latent 4 of 4"):
        table[4]
    with pytest.raises(UnknownNameError, match="'mds'"):
        table[0]["mdss"]


def test_top_orders_and_leaves_nan_out(table: LatentTable) -> None:
    assert table.top("mds")["latent"].tolist() == [2, 3, 0]
    assert table.top("mds", 1, lowest=True)["name"].tolist() == ["red"]


def test_what_it_shows_is_text(table: LatentTable) -> None:
    for shown in (table._repr_html_(), table[2]._repr_html_(), table.top("mds")._repr_html_()):
        assert "<script>" not in shown
        assert "&lt;script&gt;" in shown
        assert "&quot;images&quot; &lt;here&gt;" in shown


def test_a_long_table_says_how_long_it_is() -> None:
    shown = LatentTable({"mds": np.arange(300.0)})._repr_html_()
    assert shown.count("<tr>") == 21
    assert "300 latents" in shown
