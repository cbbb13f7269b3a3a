"""A run folder as one page: figures, tables and a card per latent, in a single file that opens with the network off.

Beside it, for people who rate latents: `RatePage` (blind), and `cliplens agree` for what they answered.
"""

from cliplens_plugins.report.html import FolderReport as FolderReport
from cliplens_plugins.report.html import HtmlReport as HtmlReport
from cliplens_plugins.report.rate import RatePage as RatePage
