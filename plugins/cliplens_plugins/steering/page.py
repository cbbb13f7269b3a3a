"""Write the page of a steering session: one HTML file with a slider over doses, the figures and the edits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from cliplens.files import write_text
from cliplens.pages import png_uri
from cliplens_plugins.steering.figures import as_table
from cliplens_plugins.steering.given import reference_of
from cliplens_plugins.steering.mixing import grids

_LARGE = 160
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Steering</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222 }
figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top }
figure img { width: {{ size }}px; image-rendering: pixelated; display: block }
figure img[hidden] { display: none }
figcaption { max-width: {{ size }}px; font-size: 12px; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 1em 0 } th, td { text-align: right; padding: .2em .8em; white-space: nowrap }
table.pictures th, table.pictures td { text-align: left; vertical-align: top; padding: 0; white-space: normal }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f4f4f4 }
label { display: block; margin: 1em 0 } input[type=range] { width: 20em; vertical-align: middle }
.scroll { overflow-x: auto }
</style></head><body>
<h1>Steering</h1>
{% if aim %}<p>Aim: <b>{{ aim }}</b>
{%- if suggested is not none %}; suggested dose {{ suggested }}{% endif %}.</p>{% endif %}
{% if verdict %}<p>Control: {{ verdict }}.</p>{% endif %}
{% for words, latents in taken.items() %}<p>Latents for <b>{{ words }}</b> ({{ latents|length }} edited
{%- if good.get(words, 0) > latents|length %} of {{ good[words] }} good ones{% endif %}):
{% for l in latents %}{{ l.latent }} ({{ l.name or "no name" }}){{ ", " if not loop.last }}{% endfor %}.</p>{% endfor %}
{% for name, picture in references %}<figure><img src="{{ picture }}" alt="reference">
<figcaption>the reference {{ name }}</figcaption></figure>{% endfor %}
{% if samples %}<label>{{ "Alpha" if grids else "Dose" }}
<input id="dose" type="range" min="0" max="{{ doses|length - 1 }}" value="{{ start }}" step="1">
<output id="shown">{{ doses[start] }}</output></label>
<div class="scroll"><table class="pictures"><tr>{% for edit in edits %}<th>{{ edit.name }}</th>{% endfor %}</tr>
{% for sample in samples %}<tr>{% for pictures in sample.edits %}<td><figure>{% for picture in pictures %}
<img class="d{{ loop.index0 }}" alt="dose {{ doses[loop.index0] }}" src="{{ picture }}"
{{ "" if loop.index0 == start else "hidden" }}>
{% endfor %}<figcaption>{{ sample.label }}</figcaption></figure></td>{% endfor %}</tr>
{% endfor %}</table></div>
<script>
const doses = {{ doses|tojson }}, slider = document.getElementById("dose");
slider.addEventListener("input", () => {
  document.getElementById("shown").textContent = doses[slider.value];
  document.querySelectorAll("figure img").forEach(i => { i.hidden = i.className !== "d" + slider.value; });
});
</script>{% endif %}
{% for title, heads, lines in grids %}<h2>{{ title }}</h2>
<div class="scroll"><table><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table></div>{% endfor %}
{% for edit in edits %}{% if edit.lines %}{% if edits|length > 1 %}<h2>{{ edit.name }}</h2>{% endif %}
<div class="scroll"><table><tr>{% for head in edit.heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for line in edit.lines %}<tr>{% for value in line %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}
</table></div>{% endif %}
<ul>{% for note in edit.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endfor %}
<p>In brackets: 95 % intervals over the samples (Wilson's for shares, bootstrap for means).</p>
</body></html>
"""


def save_page(
    path: Path, found: dict[str, Any], columns: Sequence[Sequence[Sequence[Image.Image]]], labels: Sequence[str]
) -> None:
    """Write the page of a session.

    Args:
        path: file to write.
        found: the content of steering.json.
        columns: per edit, the session's own first, pictures per dose, the same samples in each; empty without pictures.
        labels: one per sample.
    """
    samples = [
        {"label": label, "edits": [[_embedded(dose[n]) for dose in edit] for edit in columns]}
        for n, label in enumerate(labels)
    ]
    own = {"name": found["edit"], "measured": found["measured"], "notes": found["notes"]}
    others = [{"name": other["edit"], **other} for other in found.get("compared", ())]
    edits = [_table_of(edit) for edit in (own, *others)]
    environment = jinja2.Environment(autoescape=True)
    page = environment.from_string(_TEMPLATE).render(
        aim=found.get("aim"),
        suggested=found.get("suggested_dose"),
        verdict=found.get("verdict"),
        taken=found["latents"],
        good=found.get("good", {}),
        doses=found["doses"],
        samples=samples if columns else [],
        edits=edits,
        references=_pictures_of(found["asked"].get("reference", ())),
        grids=list(grids(found["mixed"])) if "mixed" in found else [],
        size=_LARGE,
        start=_start(found["doses"], found.get("suggested_dose")),
    )
    write_text(path, page)


def _table_of(edit: dict[str, Any]) -> dict[str, Any]:
    heads, lines = as_table(edit["measured"]) if edit["measured"] else ([], [])
    return {"name": edit["name"], "heads": heads, "lines": lines, "notes": edit["notes"]}


def _start(doses: Sequence[float], suggested: float | None) -> int:
    """Return the index of the dose to show first: the suggested one, else the largest up to 1."""
    if suggested in doses:
        return list(doses).index(suggested)  # type: ignore[arg-type]
    return max(range(len(doses)), key=lambda n: (doses[n] <= 1, doses[n] if doses[n] <= 1 else -doses[n]))


def _pictures_of(references: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and picture of each reference that is a picture, not a caption."""
    opened = [(Path(given).name, reference_of(given)) for given in references]
    return [(name, _embedded(picture)) for name, picture in opened if isinstance(picture, Image.Image)]


def _embedded(picture: Image.Image) -> str:
    return png_uri(picture.convert("RGB"))
