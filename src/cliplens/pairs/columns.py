"""From rows with named columns to pairs: which column is which, and the rules of ids and images all tables share."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cliplens.errors import PairsError, nearest_names
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Files, Growing
from cliplens.sites import Modalities

Columns = tuple[str | None, str | None, str | None]
"""The columns a user named: image, caption, id; None where not named."""
IMAGE_NAMES = ("image", "image_path", "filepath", "file_path", "file", "file_name", "filename", "path", "img")
CAPTION_NAMES = ("caption", "captions", "text", "title", "sentence", "description", "alt", "name")
ID_NAMES = ("id", "pair_id", "image_id", "key", "uid")


def which_columns(columns: Columns, present: Sequence[str], modalities: Modalities, where: str) -> Columns:
    """The columns to read: those named, else the first usual name present.

    Raises:
        PairsError: a named column is missing, or none of the usual names is present for one that is needed.
    """
    image = _column("image", columns[0], IMAGE_NAMES, present, where, needed=modalities != "text")
    caption = _column("caption", columns[1], CAPTION_NAMES, present, where, needed=modalities != "image")
    identity = _column("id", columns[2], ID_NAMES, present, where, needed=False)
    return (image, caption, identity)


def pairs_of_rows(rows: Iterable[Mapping[str, Any]], columns: Columns, root: Path, name: str) -> Pairs:
    """Pairs of rows: a list of captions becomes one pair per caption, all with the same image.

    The id is the id column's value, else the image as the table writes it, else the table's name and the row.
    """
    image_column, caption_column, id_column = columns
    ids, images, captions = Growing(), Growing(), Growing()
    for number, row in enumerate(tqdm(rows, desc="reading pairs", unit="row", delay=2)):
        image = _cell(row, image_column)
        known = _cell(row, id_column) or image or f"{name}-{number:06d}"
        for caption in captions_of(None if caption_column is None else row.get(caption_column)):
            ids.append(known)
            images.append(image)
            captions.append(caption)
    files = Files(root, images.done()) if image_column else None
    return Pairs(ids.done(), files, captions.done() if caption_column else None, name=name)


def captions_of(value: Any) -> list[str | None]:
    """The captions a cell holds: one, or a list of them for the same image."""
    if isinstance(value, list | tuple):
        return [None if v is None else str(v) for v in value] or [None]
    return [None if value is None else str(value)]


def _cell(row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    return str(value).strip() or None if value is not None else None


def _column(
    what: str, named: str | None, usual: Sequence[str], present: Sequence[str], where: str, *, needed: bool
) -> str | None:
    if named is not None:
        if named in present:
            return named
        near = nearest_names(named, present) or list(present)
        raise PairsError(
            expected=f"a column {named!r} in {where}",
            found=f"the columns {_listed(present)}",
            fix=f"use one of {_listed(near)}",
        )
    by_folded = {p.casefold(): p for p in reversed(present)}
    for name in usual:
        if name in by_folded:
            return by_folded[name]
    if not needed:
        return None
    raise PairsError(
        expected=f"a column of {what}s in {where}, called {_listed(usual)}",
        found=f"the columns {_listed(present)}",
        fix=f"name it with {what}_column (--{what}-column)",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names) or "none"
