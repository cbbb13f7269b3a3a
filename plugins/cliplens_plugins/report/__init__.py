"""Show a run folder as one HTML page with figures, tables and a card per latent; the page works offline.

`RatePage` writes a page for blind rating of latents. `cliplens agree` evaluates the answers.
"""

from cliplens_plugins.report.html import FolderReport as FolderReport
from cliplens_plugins.report.html import HtmlReport as HtmlReport
from cliplens_plugins.report.rate import RatePage as RatePage
