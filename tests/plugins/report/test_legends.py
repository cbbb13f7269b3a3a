"""Every table of a run has a line that explains it, and the walk names latents that are what it says."""

from pathlib import Path

import numpy as np
import pytest

from cliplens.files import read_json
from cliplens.records import LatentTable
from cliplens_plugins.report import HtmlReport
from cliplens_plugins.report.legends import HEADS, LEGENDS, VALUES, legend
from cliplens_plugins.report.walk import walk
from support.study_runs import study_run


def table(**columns: object) -> LatentTable:
    base = {
        "alive": np.array([True, True, True, True, False]),
        "mds": np.array([0.5, 0.95, 0.9, 0.4, np.nan]),
        "mds_low": np.array([0.45, 0.9, 0.2, 0.3, np.nan]),
        "mds_high": np.array([0.55, 0.99, 1.0, 0.5, np.nan]),
        "cofiring": np.array([0.8, 0.0, 0.1, 0.3, np.nan]),
        "fire_image": np.array([0.1, 0.2, 0.001, 0.1, 0.0]),
        "fire_text": np.array([0.1, 0.0, 0.001, 0.1, 0.0]),
        "modality_significant": np.array(["CrossD", "ImgD", "undecided", "CrossD", "dead"], dtype=object),
        "name": np.array(["ring", "shade", "red", "blue", "unnamed"], dtype=object),
    }
    return LatentTable({**base, **columns})  # type: ignore[dict-item]


def test_the_walk_takes_one_of_each() -> None:
    stops = walk(table())
    assert [stop.latent for stop in stops] == [0, 1, 2]
    assert "10.0 % of images" in stops[0].text
    assert "0.20 to 1.00" in stops[2].text


def test_the_walk_leaves_out_what_is_not_there() -> None:
    assert walk(None) == []
    assert walk(LatentTable({"alive": np.ones(3, bool)})) == []
    none_sure = np.array(["undecided"] * 5, dtype=object)
    assert [stop.title for stop in walk(table(modality_significant=none_sure))] == ["A latent to doubt"]


@pytest.mark.filterwarnings("ignore")
def test_every_table_of_a_run_is_explained(tmp_path: Path) -> None:
    run = study_run(tmp_path)
    titles = read_json(run.folder.findings)["tables"]
    assert [title for title in titles if not legend(title)] == []
    page = HtmlReport().write(run.folder.path).read_text(encoding="utf-8")
    assert page.count('<p class="legend">') >= len(titles)
    assert "share of dead latents" in page
    assert "untrained dictionary" in page


def test_words_are_short_and_plain() -> None:
    assert all(text.endswith(".") and len(text) < 260 for text in LEGENDS.values())
    assert all("_" not in word for word in [*HEADS.values(), *(v for k, v in VALUES.items() if k != "i_min")])
