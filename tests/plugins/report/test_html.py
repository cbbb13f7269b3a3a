"""The page as a file: what is in it, what is not, and what a run that is not finished gives."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliplens.errors import InputError
from cliplens.exemplars import load_exemplars, save_exemplars
from cliplens.files import read_json, write_json
from cliplens.pages import count, embedded, figure, share
from cliplens.records import Exemplars, LatentTable, Pair
from cliplens.runfolder import RunFolder
from cliplens_plugins.report import HtmlReport
from cliplens_plugins.report.content import read_content
from cliplens_plugins.report.pictures import PER_LATENT, picture_table
from support.run_folders import HOSTILE, make_run_folder


def written(run: RunFolder, **options: float) -> str:
    return HtmlReport(**options).write(run.path).read_text(encoding="utf-8")


def block(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def test_nothing_in_the_page_points_outside_it(tmp_path: Path) -> None:
    page = written(make_run_folder(tmp_path / "run", latents=12, pairs=40))
    without_namespace = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r'(?:src|href)="(?!#|data:)', without_namespace)
    assert "default-src 'none'" in page
    # The only address left is inside the hostile caption and inside text of the run's own tables.
    assert "url(" not in page


def test_markup_from_the_data_appears_nowhere_as_markup(tmp_path: Path) -> None:
    page = written(make_run_folder(tmp_path / "run", latents=12, pairs=40))
    assert "<script>window.pwned" not in page
    assert "<img src=x" not in page
    assert "<b>no</b>" not in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert HOSTILE in block(page, "data")["pairs"]["caption"]  # type: ignore[index]


@given(st.text())
def test_embedded_json_reads_back_and_cannot_end_its_element(text: str) -> None:
    made = str(embedded([text]))
    assert json.loads(made) == [text]
    assert not set("<>&\u2028\u2029") & set(made)


def test_data_agree_with_the_run_folder(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=24, pairs=80)
    data = block(written(run), "data")
    table = LatentTable.load(run.latents)
    assert data["latents"] == 24  # type: ignore[index]
    mds = np.array([np.nan if v is None else v for v in data["columns"]["mds"]])  # type: ignore[index]
    np.testing.assert_allclose(mds, table["mds"], rtol=1e-4)
    pairs, listed = data["pairs"], data["exemplars"]["image"]  # type: ignore[index]
    assert len(set(pairs["id"])) == len(pairs["id"])
    assert all(values == sorted(values, reverse=True) for values in (row[1::2] for row in listed))


def test_each_picture_stands_in_the_file_once(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=24, pairs=40)
    page = written(run)
    pictures = block(page, "pictures-0")
    images, _ = load_exemplars(run.exemplars)
    assert images is not None
    wanted = {images.pairs[p].source for p in images.at[:, :PER_LATENT].ravel() if p >= 0}
    assert len(set(pictures)) == len(pictures) == len(wanted)  # type: ignore[call-overload, arg-type]


def test_a_small_budget_gives_every_latent_its_strongest_picture_first(tmp_path: Path) -> None:
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(12)]
    pairs = tuple(Pair(f"p{i}", image, None) for i, image in enumerate(images))
    at = np.arange(12).reshape(3, 4)
    save_exemplars(tmp_path, Exemplars("image", pairs, at, np.ones((3, 4))), None)
    loaded, _ = load_exemplars(tmp_path)
    assert loaded is not None
    everything, _ = picture_table({"image": loaded}, 10**9)
    size = max(map(len, everything))
    _, shown = picture_table({"image": loaded}, 3 * size)
    assert {"p0", "p4", "p8"} <= set(shown)
    assert len(shown) < 12


def test_a_run_without_scores_yet_still_has_a_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write_settings({"asked": {"pairs": "a.csv", "model": "ViT-B-32"}, "model": {"name": "ViT-B-32"}})
    page = written(run)
    assert "ViT-B-32" in page
    assert 'id="list"' not in page


def test_one_modality_alone_has_a_page(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=12, pairs=40)
    table = LatentTable.load(run.latents)
    kept = {n: v for n, v in table.columns.items() if n in ("latent", "alive", "fire_image", "ms_image", "name")}
    LatentTable(kept).save(run.latents)
    images, _ = load_exemplars(run.exemplars)
    save_exemplars(run.exemplars, images, None)
    page = written(run)
    assert '<svg class="histogram"' not in page
    assert list(block(page, "data")["exemplars"]) == ["image"]  # type: ignore[index]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Expected a run folder, which contains run"):
        HtmlReport().write(tmp_path)


def test_numbers_as_people_write_them() -> None:
    assert count(20480) == "20\u202f480"
    assert figure(0.98712) == "0.987"
    assert figure(None) == figure(float("nan")) == "–"
    assert figure(True) == "yes"
    assert figure(12.345) == "12.3"
    assert figure(0.0) == "0.000"
    assert figure(0.00049) == "4.9e-04"
    assert figure(-0.00051) == "-0.001"
    assert share(0.5) == "50.0\u202f%"


def test_warnings_stand_above_the_figures_and_other_notes_below(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=6, pairs=30)
    found = json.loads(run.findings.read_text())
    write_json(run.findings, {**found, "notes": ["A remark.", "Warning: all captions are <b>equal</b>."]})
    page = HtmlReport().write(run.path).read_text(encoding="utf-8")
    warning, figures = page.index("Warning: all captions are &lt;b&gt;equal"), page.index('class="figures"')
    assert warning < figures < page.index("<li>A remark.</li>")
    assert page.count("Warning: all captions") == 1


def test_undecided_latents_are_a_class_of_their_own(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=12, pairs=40)
    table = LatentTable.load(run.latents)
    classes = np.where(np.arange(12) < 5, "undecided", table["modality"]).astype(object)
    table.with_columns({"modality_significant": classes}).save(run.latents)
    rows = {row["name"]: row["counts"] for row in read_content(run).classes}
    assert rows["undecided"][-1][0] == 5
    assert rows["undecided"][0][0] == 0


def test_the_title_is_the_run_and_the_figures_are_the_significant_ones(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "my-run", latents=6, pairs=30)
    summary = read_json(folder.summary)
    counts = {"ImgD": 41, "CrossD": 42, "TextD": 43}
    sure = {f"{kind}_significant": n for kind, n in zip(counts, (31, 32, 33), strict=True)}
    write_json(folder.summary, {**summary, **counts, "model": "a model"})
    page = HtmlReport().write(folder.path).read_text()
    assert '<h1 id="title">my-run <small>model a model</small></h1>' in page
    assert re.search(r"ImgD <span.*?<dd>41</dd><dd class=.sub.>by fixed cuts", page)
    write_json(folder.summary, {**summary, **counts, **sure, "undecided_significant": 34})
    page = HtmlReport().write(folder.path).read_text()
    assert re.search(r"ImgD <span.*?<dd>31</dd><dd class=.sub.>significant; 41 by fixed cuts", page)
    assert re.search(r'Undecided</dt><dd class="within">34</dd>', page)
    assert "<b>Paper's rule:</b>" in page.replace("&#39;", "'")
