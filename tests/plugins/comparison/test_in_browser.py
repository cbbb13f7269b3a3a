"""The page of a comparison in a real browser, with the network off: marks from a baseline, order, differences."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliplens.run import Settings, sweep
from cliplens_plugins.comparison import Comparison, compare, open_subjects
from cliplens_plugins.comparison.page import save_page
from support.browser import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
SMALL: dict[str, Any] = {"pairs": "world:256", "d_sae": 32, "samples": 2048, "batch_size": 128}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("page")
    made = sweep(Settings(**SMALL), {"k": [1, 8], "seed": [0, 1, 2]}, folder / "sweep", until="train")
    comparison = compare(open_subjects([made.path]), pairs=51, replicates=50)
    save_page(folder / "compare.html", comparison)
    return comparison, folder / "compare.html"


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
    rows = "return [...document.querySelectorAll('.differences tbody tr')].map(r => r.innerText)"
    assert len(js(page, rows)) == len(different)
    page.find_element("id", "only").click()
    assert len(js(page, rows)) == len(comparison.differences)
    assert not js(page, "return [...document.querySelectorAll('.mark')].some(m => m.textContent)")
    js(page, "const s=document.getElementById('baseline'); s.value='k 1'; s.dispatchEvent(new Event('change'))")
    mark = "return document.querySelector('tr[data-name=\"k 8\"] td[data-figure=l0] .mark').textContent"
    assert js(page, mark) == "▲"
    assert js(page, "return document.getElementById('told').textContent").startswith(f"{len(different)} figure")
    assert js(page, "return document.querySelectorAll('.dot.chosen').length") >= 1
    js(page, "const s=document.getElementById('baseline'); s.value='k 8'; s.dispatchEvent(new Event('change'))")
    assert js(page, mark.replace("k 8", "k 1")) == "▼"


def test_order_and_plots(page: Any, found: tuple[Comparison, Path]) -> None:
    names = "return [...document.querySelectorAll('.figures-of tbody tr')].map(r => r.dataset.name)"
    assert js(page, names) == ["k 1", "k 8"]
    page.find_element("css selector", "button[data-sort=l0]").click()
    assert js(page, names) == ["k 8", "k 1"]
    page.find_element("css selector", "button[data-sort=l0]").click()
    assert js(page, names) == ["k 1", "k 8"]
    figures = [f for f in found[0].figures if f.name != "l0"]
    assert js(page, "return document.querySelectorAll('.plots svg').length") == len(figures)
    assert js(page, "return document.querySelectorAll('.plots svg .front').length") >= 1
    js(page, "document.querySelector('.dot[data-name=\"k 8\"]').dispatchEvent(new MouseEvent('click'))")
    assert js(page, "return document.getElementById('baseline').value") == "k 8"
    assert js(page, "return document.documentElement.scrollWidth <= window.innerWidth")


def test_light_and_dark(page: Any) -> None:
    page.find_element("id", "theme").click()
    first = js(page, "return document.documentElement.dataset.theme")
    page.find_element("id", "theme").click()
    assert {first, js(page, "return document.documentElement.dataset.theme")} == {"light", "dark"}
