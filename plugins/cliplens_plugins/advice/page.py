"""Write the page for a data team: ranked pairs with pictures, buttons to accept or reject, export as CSV."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from cliplens.files import write_text
from cliplens.studies import Study
from cliplens_plugins.advice.of_run import Listed

_SIDE = 144


def save_page(path: Path, study: Study, listed: Sequence[Listed], pictures: Mapping[str, Image.Image]) -> None:
    """Write the page as one file. It loads nothing from elsewhere, and runs no script but its own.

    Args:
        path: file to write.
        study: the record of the study.
        listed: the pairs, list by list.
        pictures: pair id -> picture.
    """
    script = _asset("advice.js")
    lists: dict[str, list[Listed]] = {}
    for one in listed:
        lists.setdefault(one.list, []).append(one)
    page = (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(_asset("advice.html"))
        .render(
            study=study,
            lists=lists,
            concepts=study.tables["Decision per concept"],
            pictures={pair_id: _uri(picture) for pair_id, picture in pictures.items()},
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    write_text(path, page)


def _asset(name: str) -> str:
    return (files("cliplens_plugins.advice") / "assets" / name).read_text(encoding="utf-8")


def _uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
