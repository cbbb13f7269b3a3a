"""Show a run folder as one page: figures, tables and a card per latent, in a single file that opens without network.

`RatePage` is a page for blind rating of latents; `cliplens agree` evaluates the answers.
"""

from cliplens_plugins.report.html import FolderReport as FolderReport
from cliplens_plugins.report.html import HtmlReport as HtmlReport
from cliplens_plugins.report.rate import RatePage as RatePage
