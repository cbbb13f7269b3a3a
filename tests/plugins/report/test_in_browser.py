"""The report in a real browser, with the network off: it loads without a complaint, sorts, filters, searches, opens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliplens.exemplars import load_exemplars, save_positions
from cliplens.files import write_json
from cliplens.records import LatentTable, PositionActivations
from cliplens.runfolder import RunFolder
from cliplens_plugins.report import FolderReport, HtmlReport
from support.browser import chromium
from support.run_folders import HOSTILE, make_run_folder

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=60, pairs=120)
    read_inside_the_towers(folder)
    HtmlReport().write(folder.path)
    FolderReport().write(folder.path)
    return folder


def read_inside_the_towers(run: RunFolder) -> None:
    """Positions, histograms, neighbours, a bridge and a measured steering, as runs inside the towers leave them."""
    rng = np.random.default_rng(0)
    images, texts = load_exemplars(run.exemplars)
    assert images is not None
    assert texts is not None
    heat: dict[Any, PositionActivations] = {}
    for k in range(60):
        for rank, (_, value) in enumerate(images.of(k)[:8]):
            values = np.zeros(16) if rank == 1 else rng.random(16) * value
            heat["image", k, rank] = PositionActivations(values, (4, 4))
        for rank, (pair, value) in enumerate(texts.of(k)[:8]):
            words = [m.span() for m in re.finditer(r"\S+", pair.caption or "")]
            heat["text", k, rank] = PositionActivations(rng.random(len(words)) * value, None, tuple(words))
    save_positions(run.exemplars, heat)
    counts = np.zeros((60, 40), dtype=np.int64)
    counts[:, 20:26] = rng.integers(0, 9, (60, 6))
    table = LatentTable.load(run.latents)
    near = (np.arange(60)[:, None] + np.arange(1, 6)) % 60
    partner = np.where(table["modality"] == "ImgD", 7, -1)
    columns = {"hist_image": counts, "hist_text": counts, "neighbours": near, "neighbour_cosine": near / 100}
    table.with_columns({**columns, "bridge_partner": partner, "bridge": partner / 10}).save(run.latents)
    rows = [
        {
            "dose": d,
            "colour=red": d / 3,
            "95 %": f"{d / 4:.2f}-{d / 2.5:.2f}",
            "shape changed": d / 9,
            "size changed": 0.0,
        }
        for d in (0.0, 1.0, 2.0)
    ]
    edits = [{"operation": "add", "latents": [4], "strength": 1.0}]
    write_json(run.steering / "steering.json", {"aim": "colour=red", "edits": edits, "measured": rows})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Any, run: Any) -> Any:
    """The report, scrolled to the cards of its latents."""
    browser.get("about:blank")
    browser.get(run.report.as_uri())
    browser.execute_script("document.getElementById('latents')?.scrollIntoView()")
    frames_pass(browser)
    return browser


def frames_pass(browser: Any) -> None:
    """Wait until what was asked for has been drawn."""
    browser.execute_async_script(
        "const done = arguments[arguments.length - 1]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    )


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


def test_heat_lies_on_pictures_and_words_until_it_is_switched_off(page: Any) -> None:
    seen = "return [document.querySelectorAll('canvas.heat').length, document.querySelectorAll('.token').length]"
    canvases, tokens = page.execute_script(seen)
    assert canvases > 10
    assert tokens > 30
    painted = page.execute_script(
        "const c = document.querySelector('canvas.heat'); return [c.width, c.height, c.getContext('2d')"
        ".getImageData(0, 0, 4, 4).data.some(v => v > 0)]"
    )
    assert painted == [4, 4, True]
    alts = page.execute_script("return [...document.querySelectorAll('.frame img')].map(i => i.alt)")
    assert any(re.search(r"; fires most at patch \d down, \d across$", alt) for alt in alts)
    assert any("fires at no patch" in alt for alt in alts)
    page.execute_script("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'h', bubbles: true}))")
    assert page.execute_script(seen) == [0, 0]
    assert page.execute_script("return document.getElementById('heat').getAttribute('aria-pressed')") == "false"
    page.execute_script("document.getElementById('heat').click()")
    assert page.execute_script(seen) == [canvases, tokens]


def test_the_patches_lie_on_the_middle_square_of_what_was_cropped(page: Any) -> None:
    sizes = page.execute_script(
        "const box = document.querySelector('.frame canvas'); const i = box.parentNode.querySelector('img');"
        "return [i.naturalWidth, i.naturalHeight, box.style.width, box.style.height]"
    )
    assert sizes[0] == sizes[1]
    assert sizes[2:] == ["100%", "100%"]


def test_an_opened_latent_shows_strengths_and_leads_to_its_neighbours(page: Any, run: Any) -> None:
    classes = LatentTable.load(run.latents)["modality"]
    k = int(np.flatnonzero(classes == "ImgD")[0])
    page.get("about:blank")
    page.get(run.report.as_uri() + f"#latent-{k}")
    assert page.execute_script("return document.querySelectorAll('#detail .strengths svg').length") == 2
    titles = page.execute_script(
        "return [...document.querySelectorAll('#detail .strengths title')].map(t => t.textContent)"
    )
    assert all(re.fullmatch(r"\d+ (images|captions) from [\d.]+ to [\d.]+", title) for title in titles)
    links = page.execute_script("return [...document.querySelectorAll('#detail .near')].map(a => a.textContent)")
    assert links[0].startswith(f"#{(k + 1) % 60} ")
    assert links[5].startswith("#7 ")
    assert "null" not in page.execute_script("return document.getElementById('detail').textContent")
    page.execute_script("document.querySelector('#detail .near').click()")
    assert page.execute_script("return document.querySelector('#detail .number').textContent") == f"#{(k + 1) % 60}"


def test_a_measured_steering_has_a_curve(page: Any) -> None:
    assert page.execute_script("return document.querySelectorAll('.doses .dot').length") == 3
    label = page.execute_script("return document.querySelector('.doses').getAttribute('aria-label')")
    assert label.startswith("Share of pictures read as colour=red against the dose")
    assert label.endswith("the share in which the attribute shape changed")
    assert page.execute_script("return !!document.querySelector('.doses .band')")


def test_the_folder_form_reads_its_pictures_from_files(browser: Any, run: Any) -> None:
    index = run.path / "report" / "index.html"
    assert index.stat().st_size < run.report.stat().st_size
    browser.get(index.as_uri())
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 200))")
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
    sources = browser.execute_script(
        "return [...document.querySelectorAll('.frame img')].map(i => [i.src, i.naturalWidth])"
    )
    assert len(sources) > 4
    assert all(source.startswith(run.path.as_uri()) and width > 0 for source, width in sources)


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


def test_on_a_phone_the_sections_and_the_heading_of_a_latent_can_be_read(browser: Any, run: Any) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        browser.get("about:blank")
        browser.get(f"{run.report.as_uri()}#latent-3")
        box = (
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.left, b.width, b.height]"
        )
        for selector in ("nav", "nav a", "#detail-title"):
            left, width, height = browser.execute_script(box, selector)
            assert left >= 0, selector
            assert width > 40, selector
            assert height > 10, selector
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_picture_stays_visible_under_the_strongest_heat(page: Any) -> None:
    most = page.execute_script(
        "return Math.max(...[...document.querySelectorAll('canvas.heat')].flatMap((c) =>"
        " [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3)))"
    )
    assert 60 < most <= 0.5 * 255


_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}).then((found) => done(
  found.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(' ; ')}`)));
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("anchor", ["", "#latent-3"])
def test_axe_finds_nothing_to_mend(browser: Any, run: Any, theme: str, anchor: str) -> None:
    browser.get("about:blank")
    browser.get(f"{run.report.as_uri()}{anchor}")
    browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    browser.execute_script((Path(__file__).parents[2] / "support" / "axe.min.js").read_text(encoding="utf-8"))
    assert browser.execute_async_script(_AXE) == []


def test_the_walk_leads_to_cards(page: Any) -> None:
    links = page.execute_script("return [...document.querySelectorAll('.walk a')].map((a) => a.getAttribute('href'))")
    assert len(links) == len(set(links)) >= 1
    page.execute_script("document.querySelector('.walk a').click()")
    frames_pass(page)
    assert page.execute_script("return document.getElementById('detail').open")


def test_on_paper_the_tables_are_open_and_the_cards_left_out(browser: Any, run: Any) -> None:
    browser.get("about:blank")
    browser.get(run.report.as_uri())
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        heights = browser.execute_script(
            "return [...document.querySelectorAll('#findings table')].map((t) => t.getBoundingClientRect().height)"
        )
        assert heights
        assert min(heights) > 0
        assert browser.execute_script("return document.getElementById('latents').getBoundingClientRect().height") == 0
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
