"""The page itself: a template, a style sheet, a script and the run's data, in one file that refers to nothing outside.

The page's Content-Security-Policy allows the page's own script, known by its hash, and pictures inside the file;
nothing else can run or be fetched, whatever stands in a caption or a name.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cliplens.contracts import Reporter
from cliplens.runfolder import RunFolder, written_whole
from cliplens_plugins.report.content import Content, read_content
from cliplens_plugins.report.figures import modality_histogram
from cliplens_plugins.report.pictures import picture_table
from cliplens_plugins.report.wording import count, figure, share

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_CHUNK = 400
"""Pictures per data block: a block is parsed when the first of its pictures is shown."""


@dataclass(frozen=True)
class HtmlReport(Reporter):
    """Writes `report.html`."""

    name: ClassVar[str] = "html"
    picture_megabytes: float = 24.0
    """How much of the file may be pictures; beyond it, weaker samples are shown without theirs."""

    def write(self, folder: Path) -> Path:
        """Write the report of a run folder into it.

        Only `run.toml` must be there: what a run has not made yet is left out of the page.
        """
        run = RunFolder.open(folder)
        content = read_content(run)
        page = render(content, int(self.picture_megabytes * 1e6))
        with written_whole(run.report) as partial:
            partial.write_text(page, encoding="utf-8")
        return run.report


def render(content: Content, picture_bytes: int) -> str:
    """The page as one string."""
    pictures, shown = picture_table(content.exemplars, picture_bytes)
    script = _asset("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            content=content,
            style=Markup(_asset("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            histogram=Markup(modality_histogram(content.table)),
            data=embedded({**content.data(shown), "chunk": _CHUNK}),
            pictures=[embedded(pictures[at : at + _CHUNK]) for at in range(0, len(pictures), _CHUNK)],
        )
    )


def embedded(content: Any) -> Markup:
    """JSON that is safe inside a script element: no character in it can end the element or start another."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def _environment() -> Environment:
    from jinja2 import FunctionLoader

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_asset), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=figure, count=count, share=share)
    return environment


def _asset(name: str) -> str:
    return (files("cliplens_plugins.report") / "assets" / name).read_text(encoding="utf-8")
