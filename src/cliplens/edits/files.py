"""Save and load edits as JSON, with the identity of their dictionary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplens.edits.edit import Edit, check_latents
from cliplens.edits.identity import check_same, identity_of
from cliplens.errors import DamagedError
from cliplens.files import read_json, write_json
from cliplens.sae import Dictionary

FORMAT = "cliplens-edits-1"
_FIELDS = ("operation", "latents", "strength", "options")


def save_edits(path: Path, edits: Sequence[Edit], dictionary: Dictionary) -> None:
    """Write edits and the identity of their dictionary atomically."""
    listed = [_plain(edit) for edit in edits]
    write_json(path, {"format": FORMAT, "dictionary": identity_of(dictionary), "edits": listed})


def load_edits(path: Path, dictionary: Dictionary) -> list[Edit]:
    """Load edits for the dictionary that they were made for.

    Raises:
        MismatchError: the edits were made for another dictionary.
        DamagedError: the file does not contain edits.
        InputError: an edit is not valid, for example a clamp from 3 to 1.
        UnknownNameError: an edit has an unknown operation or option.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _damaged(path, f"edits in the format {FORMAT!r}", "another format")
    if not isinstance(content.get("dictionary"), dict) or not isinstance(content.get("edits"), list):
        raise _damaged(path, "a dictionary and a list of edits", f"the keys {sorted(content)}")
    check_same(content["dictionary"], dictionary)
    return [check_latents(_edit(path, entry), dictionary.d_sae) for entry in content["edits"]]


def _plain(edit: Edit) -> dict[str, Any]:
    return {
        "operation": edit.operation,
        "latents": list(edit.latents),
        "strength": edit.strength,
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in edit.options.items()},
    }


def _edit(path: Path, entry: Any) -> Edit:
    if not isinstance(entry, dict) or sorted(entry) != sorted(_FIELDS):
        raise _damaged(path, f"edits with the keys {', '.join(_FIELDS)}", repr(entry))
    return Edit.from_json(**entry)


def _damaged(path: Path, expected: str, found: str) -> DamagedError:
    return DamagedError(
        expected=f"{expected} in {path}", found=found, fix="write the file with cliplens.edits.save_edits"
    )
