"""The page itself: a template, a style sheet, a script and the run's data, in one file that refers to nothing outside.

The page's Content-Security-Policy allows the page's own script, known by its hash, and pictures inside the file;
nothing else can run or be fetched, whatever stands in a caption or a name.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from cliplens.contracts import Reporter
from cliplens.runfolder import RunFolder, written_whole
from cliplens_plugins.report.content import Content, read_content
from cliplens_plugins.report.figures import modality_histogram
from cliplens_plugins.report.page import asset, embedded, environment
from cliplens_plugins.report.pictures import picture_table

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
    script = asset("report.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            content=content,
            style=Markup(asset("report.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            histogram=Markup(modality_histogram(content.table)),
            data=embedded({**content.data(shown), "chunk": _CHUNK}),
            pictures=[embedded(pictures[at : at + _CHUNK]) for at in range(0, len(pictures), _CHUNK)],
        )
    )
