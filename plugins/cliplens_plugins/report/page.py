"""Parts that the pages of this plugin share."""

from functools import partial

from jinja2 import Environment

from cliplens import pages
from cliplens.pages import base_style
from cliplens_plugins.report.legends import head, legend, plain

_PACKAGE = "cliplens_plugins.report"
asset = partial(pages.asset, _PACKAGE)
"""Read a file of the assets folder."""


def environment() -> Environment:
    """Return the template environment. Everything put into a template is escaped."""
    made = pages.environment(_PACKAGE)
    made.filters.update(head=head, legend=legend, plain=plain)
    return made


def style(*names: str) -> str:
    """Return the shared style of pages, then the named style sheets."""
    return base_style() + "".join(map(asset, names))
