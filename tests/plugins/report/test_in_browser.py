"""The report in a real browser, with the network off: it loads without a complaint, sorts, filters, searches, opens."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cliplens.records import LatentTable
from cliplens_plugins.report import HtmlReport
from support.browser import chromium
from support.run_folders import HOSTILE, make_run_folder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=60, pairs=120)
    HtmlReport().write(folder.path)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, run: Any) -> Any:
    browser.get("about:blank")
    browser.get(run.report.as_uri())
    return browser


def order(page: Any) -> list[int]:
    """Latents of the cards drawn, from the top of the page down."""
    return page.execute_script(
        "return [...document.querySelectorAll('.latent')]"
        ".sort((a, b) => a.offsetTop - b.offsetTop).map(c => +c.id.slice(7))"
    )


def choose(page: Any, element: str, value: str) -> None:
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}))",
        element,
        value,
    )


def shown(page: Any) -> str:
    return page.execute_script("return document.getElementById('shown').textContent")


def test_loads_without_a_complaint_and_asks_for_nothing(page: Any) -> None:
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    fetched = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert shown(page) == "60 latents"
    broken = page.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0
    assert page.execute_script("return document.images.length") > 10


def test_only_the_cards_near_the_window_exist(page: Any) -> None:
    assert 2 <= len(order(page)) < 15
    page.execute_script("scrollTo(0, document.body.scrollHeight / 2)")
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert 2 <= len(order(page)) < 20


@pytest.mark.parametrize("column", ["mds", "ms_image", "fire_text", "latent", "name_score"])
def test_sorts_by_any_numeric_column_both_ways_with_missing_values_last(page: Any, run: Any, column: str) -> None:
    values = LatentTable.load(run.latents)[column].astype(float)
    choose(page, "sort", column)
    first = order(page)[:2]
    if column == "latent":
        assert first == [0, 1]
        return
    best = np.sort(values[~np.isnan(values)])[::-1]
    np.testing.assert_array_equal(values[first], best[:2])
    page.execute_script("document.getElementById('direction').click()")
    np.testing.assert_array_equal(values[order(page)[:2]], best[::-1][:2])


def test_filters_by_class(page: Any, run: Any) -> None:
    classes = LatentTable.load(run.latents)["modality"]
    for kind in ("ImgD", "TextD", "CrossD", "dead"):
        page.execute_script(f"document.querySelector('[data-kind={kind}]').click()")
        assert shown(page).startswith(f"{(classes == kind).sum()} of")
        assert {classes[k] for k in order(page)} == {kind}


def test_searches_names_numbers_and_on_request_captions(page: Any, run: Any) -> None:
    names = LatentTable.load(run.latents)["name"]
    choose(page, "search", "#17")
    assert order(page) == [17]
    wanted = names[0]
    choose(page, "search", wanted.upper())
    assert 0 in order(page)
    choose(page, "search", "onerror")
    assert order(page) == []
    assert page.execute_script("return !document.getElementById('none').hidden")
    page.execute_script("document.getElementById('in-captions').click()")
    assert len(order(page)) > 0
    page.execute_script("document.getElementById('clear').click()")
    assert shown(page) == "60 latents"


def test_filters_by_a_range_and_by_a_bar_of_the_histogram(page: Any, run: Any) -> None:
    mds = LatentTable.load(run.latents)["mds"]
    choose(page, "range-column", "mds")
    choose(page, "range-low", "0.9")
    assert set(order(page)) <= set(np.flatnonzero(mds >= 0.9))
    assert shown(page) == f"{(mds >= 0.9).sum()} of 60"
    page.execute_script("document.querySelector('.histogram .bar').dispatchEvent(new MouseEvent('click'))")
    assert len(order(page)) > 0
    assert (mds[order(page)] <= 0.025).all()


def test_markup_in_captions_and_names_is_text(page: Any) -> None:
    choose(page, "search", "#3")
    page.execute_script("document.querySelector('.latent h3 button').click()")
    assert "<script>window.pwned = 3</script>" in page.execute_script(
        "return document.getElementById('detail').textContent"
    )
    page.execute_script("document.getElementById('detail').close(); document.getElementById('clear').click()")
    page.execute_script(
        "document.getElementById('in-captions').checked || document.getElementById('in-captions').click()"
    )
    choose(page, "search", "onerror")
    page.execute_script("document.querySelector('.latent h3 button').click()")
    said = page.execute_script("return [...document.querySelectorAll('#detail .said')].map(e => e.textContent)")
    pictured = page.execute_script("return [...document.querySelectorAll('#detail img')].map(e => e.alt)")
    assert HOSTILE in said + pictured
    assert page.execute_script("return window.pwned") is None
    assert page.execute_script("return document.scripts.length") == page.execute_script(
        "return [...document.scripts].filter(s => !s.id || s.id === 'data' || s.id.startsWith('pictures-')).length"
    )


def test_opens_a_latent_from_the_keyboard_and_from_its_address(page: Any, run: Any) -> None:
    page.execute_script("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))")
    page.execute_script(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"
    )
    assert page.execute_script("return document.getElementById('detail').open")
    page.get("about:blank")
    page.get(run.report.as_uri() + "#latent-31")
    assert page.execute_script("return document.querySelector('#detail .number').textContent") == "#31"


def test_light_and_dark(page: Any) -> None:
    before = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.execute_script("document.getElementById('theme').click()")
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != before


def test_is_accessible_where_a_program_can_tell(page: Any) -> None:
    assert page.execute_script("return [...document.images].filter(i => !i.alt).length") == 0
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('button, input, select')]"
        ".filter(e => ![e.getAttribute('aria-label'), e.textContent, e.closest('label')?.textContent]"
        ".some(t => t?.trim())).map(e => e.outerHTML)"
    )
    assert unnamed == []
    for theme in ("light", "dark"):
        contrast = page.execute_script(_CONTRAST, theme)
        assert min(contrast.values()) >= 4.5, contrast


_CONTRAST = """
document.documentElement.dataset.theme = arguments[0];
const probe = document.body.appendChild(document.createElement('i'));
const light = (name) => {
  probe.style.color = `var(--${name})`;
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((v) => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const out = {};
for (const ink of ['ink', 'soft', 'image', 'text', 'cross'])
  for (const under of ['paper', 'card']) {
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    out[ink + ' on ' + under] = (high + .05) / (low + .05);
  }
probe.remove();
return out;
"""
