"""The widget behind `browse`. Importing this file imports anywidget."""

import anywidget
import traitlets

from cliplens_plugins.report.page import asset


class LatentBrowser(anywidget.AnyWidget):
    """Show a page of latents; `latent` is the one that is open."""

    _esm = asset("browser.js")
    page = traitlets.Unicode(help="The report as one HTML page.").tag(sync=True)
    height = traitlets.Int(help="Height of the frame in pixels.").tag(sync=True)
    latent = traitlets.Int(None, allow_none=True, min=0, help="Number of the open latent, or None.").tag(sync=True)

    def __repr__(self) -> str:
        """Return a line without the page, which has megabytes."""
        return f"LatentBrowser(latent={self.latent}, page of {len(self.page) / 1e6:.1f} MB)"
