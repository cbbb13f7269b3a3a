"""Turn one value of a table, a JSON file or a dataset into captions, an image source or an id."""

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cliplens.pictures import BadPicture, PictureSource

_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
"""The beginning of a URL: https://, s3://, file://, data:."""


@dataclass(frozen=True)
class BadCaption:
    """A caption that is not text, with the reason."""

    reason: str


Caption = str | BadCaption | None


def captions_of(value: Any) -> list[Caption]:
    """Return the captions a value holds: one, or several of the same image when it is a list.

    None and nan are no caption. Objects and lists within lists are bad captions.

    >>> captions_of(["a cat", "the cat"]), captions_of(float("nan"))
    (['a cat', 'the cat'], [None])
    """
    if isinstance(value, list | tuple | np.ndarray):
        return [_caption(one) for one in value] or [None]
    return [_caption(value)]


def _caption(value: Any) -> Caption:
    if is_missing(value):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value if is_unicode(value) else BadCaption("a caption that is not valid Unicode text")
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Mapping):
        return BadCaption(f"no text in the caption but an object with the keys {', '.join(map(repr, value)) or 'none'}")
    return BadCaption(f"no text in the caption but a {type(value).__name__}")


def written_captions(text: str) -> str | list[str]:
    """Return the captions of a cell that holds a list as text, as pandas and `json` write it; else the cell.

    >>> written_captions('["a cat", "the cat"]'), written_captions("[Sold] a cat")
    (['a cat', 'the cat'], '[Sold] a cat')
    """
    if not (text.startswith("[") and text.endswith("]")):
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
            return found
    return text


def image_of(value: Any) -> str | PictureSource | None:  # noqa: PLR0911  one line per type
    """Return the image a value stands for: a file name, a path, bytes or a picture; None for no image.

    A file name is returned as a string, to be looked for below the image root.
    """
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        held = value.get("bytes")
        value = value.get("path") if held is None else held
    if is_missing(value):
        return None
    if isinstance(value, str):
        return _file_name(value)
    if isinstance(value, Path | Image.Image | BadPicture):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return _from_array(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    return BadPicture(f"no image but a {type(value).__name__} in the column of images")


def _file_name(value: str) -> str | PictureSource | None:
    name = value.strip()
    if _URL.match(name):
        return BadPicture("a URL, not a file: download the images and name the files")
    return name or None


def _from_array(value: np.ndarray) -> PictureSource:
    try:
        return Image.fromarray(value)
    except (TypeError, ValueError) as error:
        return BadPicture(f"an array that is no picture ({value.dtype}, shape {value.shape}): {error}")


def id_of(value: Any) -> str | None:
    """Return a value as an id; None when it is missing or no single value."""
    if is_missing(value) or isinstance(value, Mapping | list | tuple | np.ndarray):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns whole numbers into floats where one is missing
    return str(value).strip() or None


def is_missing(value: Any) -> bool:
    """Return whether a value is None, nan, or pandas' NA or NaT."""
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def is_unicode(text: str) -> bool:
    """Return whether a string can be encoded: lone surrogates stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
