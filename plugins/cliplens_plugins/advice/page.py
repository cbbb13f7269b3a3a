"""Write the page for a data team: ranked pairs with pictures, buttons to accept or reject, export as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from cliplens.files import write_text
from cliplens.pages import asset, environment, png_uri, script_hash
from cliplens.studies import Study
from cliplens_plugins.advice.of_run import Listed

_PACKAGE, _SIDE = "cliplens_plugins.advice", 144


def save_page(path: Path, study: Study, listed: Sequence[Listed], pictures: Mapping[str, Image.Image]) -> None:
    """Write the page as one file. It loads nothing from elsewhere, and runs no script but its own.

    Args:
        path: file to write.
        study: the record of the study.
        listed: the pairs, list by list.
        pictures: pair id -> picture.
    """
    script = asset(_PACKAGE, "advice.js")
    lists: dict[str, list[Listed]] = {}
    for one in listed:
        lists.setdefault(one.list, []).append(one)
    page = (
        environment(_PACKAGE)
        .get_template("advice.html")
        .render(
            study=study,
            lists=lists,
            concepts=study.tables["Decision per concept"],
            pictures={pair_id: _uri(picture) for pair_id, picture in pictures.items()},
            style=Markup(asset(_PACKAGE, "advice.css")),
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )
    write_text(path, page)


def _uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    return png_uri(small)
