"""Show a run folder as one HTML page with figures, tables and a card per latent; the page works offline.

`browse` shows the same page inside a notebook. `RatePage` writes a page for blind rating of latents. `cliplens agree`
evaluates the answers.
"""

from typing import TYPE_CHECKING

from cliplens.lazy import export_lazily

if TYPE_CHECKING:
    from cliplens_plugins.report.browse import browse as browse
    from cliplens_plugins.report.html import FolderReport as FolderReport
    from cliplens_plugins.report.html import HtmlReport as HtmlReport
    from cliplens_plugins.report.rate import RatePage as RatePage

export_lazily(__name__)
