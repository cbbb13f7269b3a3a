"""Remove local paths from files that are shared."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_WHOLE = re.compile(r"^(?P<kind>(?:[A-Za-z][\w.+-]+:)?(?:file://)?)(?P<path>~?/(?!/).*|[A-Za-z]:[\\/].*|\\\\.*)$", re.S)
_INSIDE = re.compile(r"(?<![\w/:.~-])(?:file://)?~?/(?:[^/\s\"'<>|]+/)+")


def without_local_paths(content: Any) -> Any:
    """Return JSON-like content with every absolute local path reduced to its last component.

    URLs (`https://...`) and relative paths are unchanged.

    >>> without_local_paths({"pairs": "/home/me/data/pairs.csv", "model": "hf:/home/me/clip", "d_sae": 64})
    {'pairs': 'pairs.csv', 'model': 'hf:clip', 'd_sae': 64}
    """
    if isinstance(content, Mapping):
        return {key: without_local_paths(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_local_paths(value) for value in content]
    return _reduced(content) if isinstance(content, str) else content


def _reduced(text: str) -> str:
    whole = _WHOLE.match(text)
    if whole is None:
        return _INSIDE.sub("", text)
    path = whole["path"]
    name = PurePosixPath(path).name if path.startswith(("/", "~")) else PureWindowsPath(path).name
    kind = whole["kind"].removesuffix("file://")
    return f"{kind}{name}"
