"""The page of a comparison in a real browser, with the network off: marks from a baseline, order, differences."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cliplens.cli import app
from cliplens.files import read_json
from cliplens_plugins.comparison import Comparison
from cliplens_plugins.comparison.page import save_page
from support.browser import chromium
from support.comparisons import comparison

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """Return three configurations; the last one was measured by another judge. A name holds markup."""
    path = tmp_path_factory.mktemp("page") / "compare.html"
    made = comparison({"k 1": 0.3, "k 8": 0.7, HOSTILE: 0.5}, bases={HOSTILE: {"judge": "other"}})
    save_page(path, made)
    return made, path


HOSTILE = "<img src=x onerror='window.pwned = 1'>"


@pytest.fixture
def page(found: tuple[Comparison, Path]) -> Iterator[Any]:
    with chromium() as browser:
        browser.get(found[1].as_uri())
        yield browser
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def js(page: Any, code: str) -> Any:
    return page.execute_script(code)


def test_differences_and_marks(page: Any, found: tuple[Comparison, Path]) -> None:
    comparison, _ = found
    different = [d for d in comparison.differences if d.verdict == "different"]
    assert any(d.figure == "l0" for d in different)
    assert any(d.verdict == "not comparable" for d in comparison.differences)
    rows = "return [...document.querySelectorAll('.differences tbody tr')].map(r => r.innerText)"
    assert len(js(page, rows)) == len(different)
    page.find_element("id", "only").click()
    assert len(js(page, rows)) == len(comparison.differences)
    assert not js(page, "return [...document.querySelectorAll('.mark')].some(m => m.textContent)")
    js(page, "const s=document.getElementById('baseline'); s.value='k 1'; s.dispatchEvent(new Event('change'))")
    mark = "return document.querySelector('tr[data-name=\"k 8\"] td[data-figure=l0] .mark').textContent"
    assert js(page, mark) == "▲"
    mine = [d for d in different if "k 1" in (d.first, d.second)]
    assert js(page, "return document.getElementById('told').textContent").startswith(f"{len(mine)} figure")
    marks = "return [...document.querySelectorAll('td[data-figure=ms_image] .mark')].map(m => m.textContent + m.title)"
    assert js(page, marks)[1:] == ["▲different", "∅not comparable: other judge"]
    assert js(page, "return document.querySelectorAll('.dot.chosen').length") >= 1
    js(page, "const s=document.getElementById('baseline'); s.value='k 8'; s.dispatchEvent(new Event('change'))")
    assert js(page, mark.replace("k 8", "k 1")) == "▼"


def test_order_and_plots(page: Any, found: tuple[Comparison, Path]) -> None:
    names = "return [...document.querySelectorAll('.figures-of tbody tr')].map(r => r.dataset.name)"
    assert js(page, names) == ["k 1", "k 8", HOSTILE]
    page.find_element("css selector", "button[data-sort=l0]").click()
    assert js(page, names) == ["k 8", HOSTILE, "k 1"]
    page.find_element("css selector", "button[data-sort=l0]").click()
    assert js(page, names) == ["k 1", HOSTILE, "k 8"]
    assert js(page, "return window.pwned") is None
    judged = 3  # MS of images, of captions, and names have two plots, as one configuration has another judge
    figures = [f for f in found[0].figures if f.name != "l0"]
    assert js(page, "return document.querySelectorAll('.plots svg').length") == len(figures) + judged
    assert js(page, "return document.querySelectorAll('.plots svg .front').length") >= 1
    js(page, "document.querySelector('.dot[data-name=\"k 8\"]').dispatchEvent(new MouseEvent('click'))")
    assert js(page, "return document.getElementById('baseline').value") == "k 8"
    assert js(page, "return document.documentElement.scrollWidth <= window.innerWidth")


def test_light_and_dark(page: Any) -> None:
    page.find_element("id", "theme").click()
    first = js(page, "return document.documentElement.dataset.theme")
    page.find_element("id", "theme").click()
    assert {first, js(page, "return document.documentElement.dataset.theme")} == {"light", "dark"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_twelve_is_shown_on_one_page(tmp_path: Path) -> None:
    asked = ["--pairs", "world:512", "--samples", "4096", "--batch-size", "256"]
    grid = ["--d-sae", "64,128", "--k", "4,8", "--seed", "0,1,2"]
    sweep = ["sweep", *asked, *grid, "--out", str(tmp_path / "sweep")]
    for command in (sweep, [*sweep, "--resume"], ["compare", str(tmp_path / "sweep"), "--out", str(tmp_path)]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, repr(done.exception)
    assert len(read_json(tmp_path / "compare.json")["dictionaries"]) == 12
    with chromium() as browser:
        browser.get((tmp_path / "compare.html").as_uri())
        assert len(js(browser, "return [...document.querySelectorAll('.figures-of tbody tr')]")) == 4
        assert len(js(browser, "return [...document.querySelectorAll('.plots svg')]")) == 7
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
