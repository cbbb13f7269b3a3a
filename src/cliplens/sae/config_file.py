"""Read the configuration file of a dictionary, JSON or YAML."""

import json
from pathlib import Path
from typing import Any

from cliplens.errors import DamagedError, InputError


def read_config(file: Path) -> dict[str, Any]:
    """Return the names and values in a configuration file.

    Raises:
        DamagedError: the file is truncated or not text.
        InputError: it contains a list or a number instead of names and values.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = json.loads(text, object_pairs_hook=_once) if file.suffix == ".json" else _yaml(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            expected=f"a configuration in {file}",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            fix="copy or download the file again",
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            expected=f"names and values in {file}",
            found=f"a {type(content).__name__}",
            fix="pass the original configuration of the dictionary",
        )
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return names and values; a name that comes twice with two values is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise ValueError(f"{name!r} given twice, as {found[name]!r} and as {value!r}")
        found[name] = value
    return found


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
