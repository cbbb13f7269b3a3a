"""Share parts of the two pages: assets, escaping templates, and JSON that is safe inside a script element."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cliplens_plugins.report.legends import head, legend, plain
from cliplens_plugins.report.wording import count, figure, share

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def asset(name: str) -> str:
    """Read a file of the assets folder."""
    return (files("cliplens_plugins.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Return the template environment, made once. Everything put into a template is escaped."""
    made = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(asset), trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(figure=figure, count=count, share=share, head=head, legend=legend, plain=plain)
    return made


def embedded(content: Any) -> Markup:
    """Return JSON that is safe inside a script element: it cannot end the element or start another one."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)
