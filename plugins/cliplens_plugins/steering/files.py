"""Edits on disk: JSON with the identity of the dictionary they were made on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplens.errors import DamagedError
from cliplens.records import Edit
from cliplens.runfolder import read_json, write_json
from cliplens.sae import Dictionary
from cliplens_plugins.steering.edits import check
from cliplens_plugins.steering.identity import check_same, identity_of

FORMAT = "cliplens-edits-1"


def save_edits(path: Path, edits: Sequence[Edit], dictionary: Dictionary) -> None:
    """Write edits, and which dictionary their latents are of, whole or not at all."""
    listed = [_plain(edit) for edit in edits]
    write_json(path, {"format": FORMAT, "dictionary": identity_of(dictionary), "edits": listed})


def load_edits(path: Path, dictionary: Dictionary) -> list[Edit]:
    """Read edits for the dictionary they were made on.

    Raises:
        MismatchError: they were made on another dictionary.
        DamagedError: the file does not hold edits.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DamagedError(
            expected=f"edits in the format {FORMAT!r} in {path}", found="something else", fix="write it with save_edits"
        )
    check_same(content["dictionary"], dictionary)
    return [check(_edit(entry), dictionary.d_sae) for entry in content["edits"]]


def _plain(edit: Edit) -> dict[str, Any]:
    return {
        "operation": edit.operation,
        "latents": list(edit.latents),
        "strength": edit.strength,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in edit.options.items()},
    }


def _edit(entry: dict[str, Any]) -> Edit:
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in entry["options"].items()}
    return Edit(entry["operation"], tuple(entry["latents"]), float(entry["strength"]), options)
