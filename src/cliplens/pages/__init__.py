"""Make HTML pages that work offline: style, templates that escape everything, data inside a script, and wording.

A page is one file that loads nothing. Its content security policy lets only its own script run, known by its hash.
"""

from cliplens.pages.page import asset as asset
from cliplens.pages.page import base_style as base_style
from cliplens.pages.page import embedded as embedded
from cliplens.pages.page import environment as environment
from cliplens.pages.page import png_uri as png_uri
from cliplens.pages.page import script_hash as script_hash
from cliplens.pages.wording import MISSING as MISSING
from cliplens.pages.wording import count as count
from cliplens.pages.wording import figure as figure
from cliplens.pages.wording import share as share
