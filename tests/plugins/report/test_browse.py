"""The browser of latents in a notebook: made in a real kernel, its front half in a real browser without network."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliplens.errors import InputError, MissingExtraError
from cliplens.runfolder import RunFolder
from cliplens_plugins.report import HtmlReport, browse
from cliplens_plugins.report.page import asset
from support.browser import chromium
from support.run_folders import make_run_folder

HOST = """<!doctype html><meta charset="utf-8"><body><script type="module">
%s
const held = { page: %s, height: 900, latent: 3 }, told = [];
const model = {
  get: (name) => held[name],
  set: (name, value) => { held[name] = value; },
  save_changes: () => told.push(held.latent),
  on: (name, call) => { window.changed = call; },
  off: () => { window.changed = null; },
};
window.held = held; window.told = told;
window.assign = (k) => { held.latent = k; window.changed(); };
window.clean = widget.render({ model, el: document.body });
</script>"""
"""Stands for Jupyter: a page with the model that anywidget gives to the front half."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=30, pairs=60)


def test_a_kernel_shows_the_widget_and_shares_the_open_latent(run: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("anywidget")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        f"from cliplens_plugins.report import browse; shown = browse({str(run.path)!r}, latent=2); shown",
        "shown.latent = 5; print(shown, shown.page.startswith('<!doctype html>'))",
        "shown.latent = -1",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=300)
    client.execute()
    made, assigned, refused = (cell["outputs"] for cell in notebook.cells)
    (view,) = (o["data"] for o in made if "application/vnd.jupyter.widget-view+json" in o.get("data", {}))
    held = client.widget_state[view["application/vnd.jupyter.widget-view+json"]["model_id"]]
    assert held["latent"] == 5
    assert "postMessage" in held["_esm"]
    assert "<base64>" not in json.dumps(made)
    (line,) = (o["text"] for o in assigned if o["output_type"] == "stream")
    assert line.startswith("LatentBrowser(latent=5, page of 0.")
    assert line.strip().endswith("True")
    assert [o["ename"] for o in refused] == ["TraitError"]


def test_the_notebook_shows_the_page_of_the_report(run: RunFolder) -> None:
    pytest.importorskip("anywidget")
    shown = browse(run.path, picture_megabytes=24.0)
    assert shown.page == HtmlReport().write(run.path).read_text(encoding="utf-8")
    assert shown.latent is None
    assert len(browse(run, picture_megabytes=0.01).page) < len(shown.page)


def test_without_the_extra_the_error_names_it(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "cliplens_plugins.report.browser", raising=False)
    with pytest.raises(MissingExtraError, match=r"Fix: run pip install 'cliplens\[notebook\]', or open report.html."):
        browse(run)


def test_a_frame_of_no_height_and_a_folder_without_a_run_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a height of at least 200 pixels, but found 10\."):
        browse(run, height=10)
    pytest.importorskip("anywidget")
    with pytest.raises(InputError, match="Fix:"):
        browse(tmp_path)


@pytest.fixture
def page(run: RunFolder, tmp_path: Path) -> Iterator[Any]:
    code = asset("browser.js").replace("export default", "const widget =")
    content = HOST % (code, json.dumps(HtmlReport().page(run)).replace("</", "<\\/"))
    host = tmp_path / "notebook.html"
    host.write_text(content, encoding="utf-8")
    with chromium() as browser:
        browser.get(host.as_uri())
        yield browser


def settled(browser: Any, script: str) -> Any:
    """Return the value of an expression as soon as it is true; fail after five seconds."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 5).until(lambda b: b.execute_script(f"return {script}"))


@pytest.mark.browser
def test_the_frame_and_the_notebook_follow_each_other(page: Any) -> None:
    page.switch_to.frame(page.find_element("tag name", "iframe"))
    assert settled(page, "document.getElementById('detail').open")  # the latent asked for at first
    assert settled(page, "document.querySelector('#detail .number').textContent === '#3'")
    page.find_element("css selector", "[aria-label='Close']").click()
    page.switch_to.default_content()
    assert settled(page, "window.told.length === 1 && window.held.latent === null")
    page.execute_script("assign(7)")
    page.switch_to.frame(page.find_element("tag name", "iframe"))
    assert settled(page, "document.getElementById('detail').open")
    assert settled(page, "document.querySelector('#detail .number').textContent === '#7'")
    page.find_element("css selector", "[aria-label='Next latent']").click()
    page.switch_to.default_content()
    assert settled(page, "window.told.length === 2")
    assert page.execute_script("return window.told[1] === window.held.latent && window.held.latent !== 7")


@pytest.mark.browser
def test_the_frame_cannot_reach_the_notebook_and_says_nothing_when_gone(page: Any) -> None:
    assert page.find_element("tag name", "iframe").get_attribute("sandbox") == "allow-scripts"
    page.switch_to.frame(page.find_element("tag name", "iframe"))
    assert settled(page, "document.querySelectorAll('.latent').length > 0")
    with pytest.raises(Exception, match="origin"):
        page.execute_script("return parent.document.title")
    page.switch_to.default_content()
    page.execute_script("clean()")
    page.execute_script("postMessage({cliplens: 'latent', latent: 9}, '*')")
    assert page.execute_script("return window.changed") is None
    assert page.execute_script("return window.held.latent") == 3
    severe = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_a_missing_folder_is_said_before_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cliplens_plugins.report.browser", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(
        InputError, match=f"Expected a run folder, which contains run.toml, but found no folder {tmp_path}/none."
    ):
        browse(tmp_path / "none")
    with pytest.raises(InputError, match=f"but found {tmp_path}. Fix: pass the folder given to --out"):
        browse(tmp_path)
