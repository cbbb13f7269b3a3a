"""Rating: the page hides what it must, answers in a real browser survive and export, and agreement is right.

All answers here are synthetic: no person has rated anything yet.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cliplens import registry
from cliplens.contracts import Reporter
from cliplens.errors import InputError, MismatchError
from cliplens.records import LatentTable
from cliplens.runfolder import RunFolder
from cliplens_plugins.report import RatePage
from cliplens_plugins.report.agree import (
    Ratings,
    agreement_between,
    agreement_with_metrics,
    alpha,
    majority,
    read_ratings,
)
from cliplens_plugins.report.command import app
from cliplens_plugins.report.rate import FORMAT, former_identity, identity
from support.browser import chromium
from support.run_folders import make_run_folder

NAN = float("nan")
PRESS = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=60, pairs=160)
    RatePage(latents=12).write(folder.path)
    return folder


def cards(run: RunFolder) -> list[dict[str, Any]]:
    page = (run.path / "rate.html").read_text(encoding="utf-8")
    start = page.index('id="data">') + len('id="data">')
    return list(json.loads(page[start : page.index("</script>", start)])["cards"])


def ratings(rater: str, given: dict[int, dict[str, str]], run: str = "r") -> Ratings:
    return Ratings(rater, run, given)


def test_it_is_a_report_by_name() -> None:
    assert isinstance(registry.find("reports", "rate").make(Reporter), RatePage)


def test_the_page_holds_no_score_no_class_and_no_activation(run: RunFolder) -> None:
    for card in cards(run):
        assert set(card) == {"latent", "name", "pairs"}
        assert all(set(pair) == {"caption", "picture"} for pair in card["pairs"])
    page = (run.path / "rate.html").read_text(encoding="utf-8")
    for told in ("ImgD", "CrossD", "TextD", "mds", "fire_image"):
        assert f'"{told}"' not in page


def test_pairs_are_whole_whichever_half_fired(run: RunFolder) -> None:
    whole = [bool(pair["picture"]) and bool(pair["caption"]) for card in cards(run) for pair in card["pairs"]]
    assert np.mean(whole) == 1


def test_every_class_is_rated_and_no_latent_twice(run: RunFolder) -> None:
    chosen = [card["latent"] for card in cards(run)]
    classes = LatentTable.load(run.latents)["modality"]
    assert len(set(chosen)) == len(chosen) == 12
    assert {classes[k] for k in chosen} == {"ImgD", "CrossD", "TextD"}


def test_the_same_run_gives_the_same_page(run: RunFolder) -> None:
    before = (run.path / "rate.html").read_bytes()
    RatePage(latents=12).write(run.path)
    assert (run.path / "rate.html").read_bytes() == before


@pytest.mark.browser
def test_answers_survive_a_reload_and_are_saved_as_json(run: RunFolder, tmp_path: Path) -> None:
    with chromium(downloads=tmp_path) as browser:
        browser.get((run.path / "rate.html").as_uri())
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
        browser.find_element("id", "rater").send_keys("A B/C")
        browser.execute_script("document.activeElement.blur()")
        for key in "158":
            browser.execute_script(PRESS, key)
        assert browser.find_element("id", "progress").text == "1 of 12, 1 answered"
        browser.get("about:blank")
        browser.get((run.path / "rate.html").as_uri())
        assert browser.find_element("id", "progress").text == "2 of 12, 1 answered"
        browser.find_element("id", "save").click()
        saved = _wait_for(lambda: next(iter(tmp_path.glob("ratings-*.json")), None))
    assert saved.name == "ratings-A_B_C.json"
    read = read_ratings(saved)
    assert read.rater == "A B/C"
    assert read.run == identity(run)
    assert list(read.answers.values()) == [{"concept": "yes", "modality": "text", "name": "right"}]


def test_alpha_of_agreement_chance_and_contradiction() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(0, 3, 40).astype(float), (3, 1))
    assert alpha(same, "nominal") == pytest.approx(1)
    assert abs(alpha(rng.integers(0, 3, (2, 2000)).astype(float), "nominal")) < 0.06
    assert alpha(np.array([[0.0, 1, 0, 1], [1, 0, 1, 0]]), "nominal") < 0
    assert np.isnan(alpha(np.zeros((2, 5)), "nominal"))


def test_alpha_of_the_book() -> None:
    """Krippendorff's own example ("Computing Krippendorff's Alpha-Reliability", 2011): .743 and .815."""
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3]
    c = [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN]
    d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN]
    table = np.array([a, b, c, d], dtype=float)
    assert alpha(table, "nominal") == pytest.approx(0.743, abs=1e-3)
    assert alpha(table, "ordinal") == pytest.approx(0.815, abs=1e-3)


def test_unsure_is_no_answer_and_ties_have_no_majority() -> None:
    one = ratings("a", {0: {"modality": "image"}, 1: {"modality": "unsure"}, 2: {"modality": "text"}})
    two = ratings("b", {0: {"modality": "image"}, 1: {"modality": "both"}, 2: {"modality": "image"}})
    assert majority([one, two]) == {0: "image", 1: "both"}


def test_metrics_that_agree_with_raters_say_so() -> None:
    said = ["image", "both", "text"] * 6
    given = {k: {"modality": m, "concept": "yes" if k % 2 else "no", "name": "right"} for k, m in enumerate(said)}
    classes = {"image": "ImgD", "both": "CrossD", "text": "TextD"}
    table = LatentTable(
        {
            "modality": np.array([classes[m] for m in said], dtype=object),
            "modality_paper": np.array(["CrossD"] * 18, dtype=object),
            "mds": np.array([{"image": 0.9, "both": 0.5, "text": 0.1}[m] for m in said]),
            "ms_image": np.array([0.8 if k % 2 else 0.3 for k in range(18)]),
        }
    )
    rows = {(r["question"], r["metric"]): r for r in agreement_with_metrics([ratings("a", given)], table)}
    assert rows["modality", "modality"]["agreement"] == 1
    assert rows["modality", "modality_paper"]["agreement"] == pytest.approx(1 / 3)
    assert rows["modality", "mds"]["correlation"] == pytest.approx(1)
    assert rows["concept", "ms_image"]["correlation"] == pytest.approx(1)


def test_ratings_of_two_runs_do_not_mix() -> None:
    with pytest.raises(MismatchError, match=r"Expected ratings of one run, but found 2 runs: r, s\."):
        agreement_between([ratings("a", {}), ratings("b", {}, run="s")])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"format": "other"}),
        json.dumps({"format": FORMAT, "rater": "a", "run": "r", "answers": {"0": {"concept": "<b>"}}}),
    ],
)
def test_files_that_are_no_ratings_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match=r"Expected answers saved by the rating page"):
        read_ratings(tmp_path / "r.json")


def test_the_command_prints_both_tables_and_refuses_another_run(run: RunFolder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for rater in "ab":
        answers = {
            card["latent"]: {"concept": "yes", "modality": str(rng.choice(["image", "text", "both"])), "name": "right"}
            for card in cards(run)
        }
        content = {"format": FORMAT, "rater": rater, "run": identity(run), "answers": answers}
        (tmp_path / f"{rater}.json").write_text(json.dumps(content))
    done = CliRunner().invoke(app, [str(run.path), str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert done.exit_code == 0, done.output
    assert "Between raters" in done.output
    assert "mds" in done.output
    content["run"] = "another"
    (tmp_path / "a.json").write_text(json.dumps(content))
    refused = CliRunner().invoke(app, [str(run.path), str(tmp_path / "a.json")])
    assert isinstance(refused.exception, MismatchError)


def _wait_for(found: Callable[[], Path | None], seconds: float = 10) -> Path:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        path = found()
        if path is not None and path.stat().st_size:
            return path
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


def test_ratings_are_tied_to_the_latents_and_not_to_versions(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    settings = copy.read_settings()
    copy.write_settings({**settings, "versions": {**settings.get("versions", {}), "torch": "99.0"}})
    assert identity(copy) == identity(run)
    table = LatentTable.load(copy.latents)
    names = table["name"].copy()
    names[0] = "another name"
    table.with_columns({"name": names}).save(copy.latents)
    assert identity(copy) != identity(run)
    saved = tmp_path / "old.json"
    content = {"format": FORMAT, "rater": "a", "run": former_identity(run), "answers": {"0": {"concept": "yes"}}}
    saved.write_text(json.dumps(content))
    done = CliRunner().invoke(app, [str(run.path), str(saved)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert isinstance(CliRunner().invoke(app, [str(copy.path), str(saved)]).exception, MismatchError)
