"""Assets of a package, templates that escape, and JSON that is safe inside a script element."""

import base64
import hashlib
import io
import json
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from cliplens.pages.wording import count, figure, share

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def asset(package: str, name: str) -> str:
    """Read a file of the folder `assets` of a package."""
    return (files(package) / "assets" / name).read_text(encoding="utf-8")


def base_style() -> str:
    """Return the style that all pages share: colours in light and dark, type, tables, notes, plots."""
    return asset("cliplens.pages", "base.css")


@cache
def environment(package: str) -> Environment:
    """Return the environment of the templates in the assets of a package. Everything put into a template is escaped.

    `{% include "pages/head.html" %}` is the head of every page; it takes `title`, `style`, `script_hash`, and
    `picture_source` where pictures are files.
    """
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(partial(_template, package)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(figure=figure, count=count, share=share)
    return made


def _template(package: str, name: str) -> str:
    shared = name.removeprefix("pages/")
    return asset(package, name) if shared == name else asset("cliplens.pages", shared)


def png_uri(picture: Image.Image, *, optimize: bool = False) -> str:
    """Return a picture as the data URI of a PNG."""
    with io.BytesIO() as buffer:
        picture.save(buffer, "PNG", optimize=optimize)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def embedded(content: Any) -> Markup:
    """Return JSON that is safe inside a script element: it cannot end the element or start another one."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy allows a script, in base64."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
