"""Write the page: template, style sheet, script and data in one file, or in a folder with the pictures as files.

The page's Content-Security-Policy allows only the page's own script, identified by its hash, and pictures inside the
file (or in its folder). No caption or name can run code or fetch anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from cliplens.contracts import Reporter
from cliplens.files import atomic_write
from cliplens.pages import embedded, script_hash
from cliplens.runfolder import RunFolder
from cliplens_plugins.report.content import NOT_ABOVE, Content, read_content, reading
from cliplens_plugins.report.figures import dose_curve, modality_histogram, worst_of
from cliplens_plugins.report.page import asset, environment, style
from cliplens_plugins.report.pictures import picture_files, picture_table

_CHUNK = 400
"""Number of pictures per data block. A block is parsed when the first of its pictures is shown."""


@dataclass(frozen=True)
class HtmlReport(Reporter):
    """Write `report.html`."""

    name: ClassVar[str] = "html"
    picture_megabytes: float = 24.0
    """Maximum total size of the pictures in the file, in megabytes. Beyond it, weaker samples are shown without."""

    def write(self, folder: Path) -> Path:
        """Write the report of a run folder into the folder; return its path.

        Only `run.toml` is required. Parts that the run has not written yet are left out.
        """
        run = RunFolder.open(folder)
        page = self.page(run)
        with atomic_write(run.report) as partial:
            partial.write_text(page, encoding="utf-8")
        return run.report

    def page(self, run: RunFolder) -> str:
        """Return the page of a run as HTML, without writing it.

        Raises:
            DamagedError: a file of the run does not hold what the page needs.
        """
        with reading(run):
            content = read_content(run)
            pictures, shown = picture_table(content.exemplars, int(self.picture_megabytes * 1e6))
            return _render(content, shown, pictures=pictures)


@dataclass(frozen=True)
class FolderReport(Reporter):
    """Write `report/index.html`, with every picture as a separate file that is loaded when it comes into view."""

    name: ClassVar[str] = "folder"

    def write(self, folder: Path) -> Path:
        """Write the report of a run folder into its folder `report`; return the path of the page."""
        run = RunFolder.open(folder)
        page = run.path / "report" / "index.html"
        with reading(run):
            content = read_content(run)
            files, shown = picture_files(content.exemplars, page.parent / "pictures")
            text = _render(content, shown, files=files)
        with atomic_write(page) as partial:
            partial.write_text(text, encoding="utf-8")
        return page


def _render(
    content: Content, shown: Mapping[str, int], *, pictures: Sequence[str] = (), files: Sequence[str] = ()
) -> str:
    """Return the page as one string, with its pictures inside it or as files beside it."""
    script = asset("report.js")
    measured = content.steering.get("measured", ())
    return (
        environment()
        .get_template("report.html")
        .render(
            content=content,
            style=Markup(style("report.css")),
            script=Markup(script),
            script_hash=script_hash(script),
            picture_source="'self' file: data:" if files else "data:",
            histogram=Markup(modality_histogram(content.table)),
            doses=Markup(dose_curve(measured, content.steering.get("aim"))),
            worst=worst_of(measured),
            not_above=NOT_ABOVE,
            data=embedded({**content.data(shown), "chunk": _CHUNK, "files": files}),
            pictures=[embedded(pictures[at : at + _CHUNK]) for at in range(0, len(pictures), _CHUNK)],
        )
    )
