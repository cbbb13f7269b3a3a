"""A run folder as one page: figures, tables and a card per latent, in a single file that opens with the network off."""

from cliplens_plugins.report.html import HtmlReport as HtmlReport
