"""Open the latents of a run inside a notebook, as the page of the report in a frame of its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from cliplens.errors import InputError, MissingExtraError
from cliplens.runfolder import RunFolder
from cliplens_plugins.report.html import HtmlReport

if TYPE_CHECKING:
    from cliplens_plugins.report.browser import LatentBrowser


def browse(
    run: Path | str | RunFolder, latent: int | None = None, *, height: int = 720, picture_megabytes: float = 8.0
) -> "LatentBrowser":
    """Return a widget that shows the report of a run in a notebook; needs the extra `notebook`.

    The widget holds the whole page, so it works without a network and stays in the saved notebook. Its attribute
    `latent` is the number of the latent that is open, or None; assign to it to open another.

    Args:
        run: the run folder, or its path.
        latent: number of the latent to open first; None shows the list.
        height: height of the frame in pixels, at least 200.
        picture_megabytes: maximum total size of the pictures, in megabytes. The weaker samples beyond it have none.

    Raises:
        InputError: the folder holds no run, or `height` or `latent` cannot be used.
        MissingExtraError: anywidget is not installed.
        DamagedError: a file of the run does not hold what the page needs.

    Example:
        >>> from cliplens_plugins.report import browse
        >>> browse("runs/first", latent=12)  # doctest: +SKIP
    """
    if height < 200:
        raise InputError(expected="a height of at least 200 pixels", found=str(height), fix="leave height out")
    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    try:
        from cliplens_plugins.report.browser import LatentBrowser
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected="the package anywidget for widgets in notebooks",
            found=f"no module {error.name}",
            fix="run pip install 'cliplens[notebook]', or open report.html",
        ) from error
    page = HtmlReport(picture_megabytes=picture_megabytes).page(folder)
    return LatentBrowser(page=page, height=height, latent=latent)
