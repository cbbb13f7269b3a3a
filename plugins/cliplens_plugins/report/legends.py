"""Explain each table of the report in one line, and name its columns and figures in plain words."""

import tomllib
from importlib.resources import files
from typing import Any

_WORDS = tomllib.loads((files("cliplens_plugins.report") / "assets" / "legends.toml").read_text(encoding="utf-8"))
LEGENDS: dict[str, str] = _WORDS["tables"]
HEADS: dict[str, str] = _WORDS["columns"]
VALUES: dict[str, str] = _WORDS["values"]


def legend(title: str) -> str:
    """Return the line that explains a table; empty where its study explains it.

    >>> legend("Modality gap")[:20]
    'How far the embeddin'
    """
    return next((text for start, text in LEGENDS.items() if title.startswith(start)), "")


def head(name: str) -> str:
    """Return the name of a column in plain words.

    >>> head("dead_fraction"), head("mean_cosine")
    ('share of dead latents', 'mean cosine')
    """
    return HEADS.get(name, name.replace("_", " "))


def plain(value: Any) -> Any:
    """Return a short name in plain words, and any other value as it is.

    >>> plain("ms_image"), plain("ImgD"), plain(3)
    ('monosemanticity on images', 'ImgD', 3)
    """
    return VALUES.get(value, value) if isinstance(value, str) else value
