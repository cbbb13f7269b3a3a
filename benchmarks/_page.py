"""Write the tables of a benchmark as one HTML page that works offline."""

from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from _bench import Bench, machine, versions
from cliplens.files import write_text
from cliplens.pages import base_style, figure

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }} · cliplens</title>
<style>{{ style }}</style></head>
<body><main class="wrap"><section><h1>{{ title }}</h1>
{% for name, value in notes.items() %}<p class="kicker">{{ name }}: {{ value | figure }}</p>{% endfor %}</section>
{% for table in tables %}<section><h2>{{ table.title }}</h2><div class="scroll"><table>
<thead><tr>{% for head in table.columns %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell | shown }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div></section>{% endfor %}
<section><p class="kicker">{{ about }}</p></section></main></body></html>
"""


def save_tables(path: Path, b: Bench, title: str) -> Path:
    """Write the tables and notes of a benchmark as a page; return its path."""
    environment = Environment(autoescape=True)
    environment.filters.update(shown=_shown, figure=figure)
    about = machine(b.args.threads, b.args.device) | versions()
    page = environment.from_string(_TEMPLATE).render(
        title=title,
        tables=b.tables,
        notes=b.notes,
        style=Markup(base_style()),
        about=", ".join(f"{name} {value}" for name, value in about.items() if value is not None),
    )
    write_text(path, page)
    return path


def _shown(cell: Any) -> str:
    """Return a cell as text; an estimate with its interval."""
    if isinstance(cell, dict) and {"value", "low", "high"} <= set(cell):
        if cell["low"] is None:
            return figure(cell["value"])
        return f"{figure(cell['value'])} ({figure(cell['low'])} to {figure(cell['high'])})"
    return figure(cell)
