"""Choose the columns of a table, and build pairs from its rows."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cliplens.errors import PairsError, nearest_names
from cliplens.pairs.cells import BadCaption, Caption, captions_of, id_of, image_of
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Files, Growing
from cliplens.pictures import BadPicture, PictureSource
from cliplens.progress import Bar
from cliplens.sites import Modalities

Columns = tuple[str | None, str | None, str | None]
"""Names of the image, caption and id columns; None where not given."""
IMAGE_NAMES = ("image", "image_path", "filepath", "file_path", "file", "file_name", "filename", "path", "img")
CAPTION_NAMES = ("caption", "captions", "text", "title", "sentence", "description", "alt", "name")
ID_NAMES = ("id", "pair_id", "image_id", "key", "uid")
PICTURE_NAMES = ("image_id", "img_id", "imgid", "cocoid", "coco_id")
"""Usual names of columns whose values are equal in rows of the same picture."""


@dataclass(frozen=True)
class BadRow:
    """A row that does not match the header, with the reason and the cells that could be read."""

    reason: str
    cells: Mapping[str, Any] = field(default_factory=dict)


Row = Mapping[str, Any] | BadRow


def which_columns(columns: Columns, present: Sequence[str], modalities: Modalities, where: str) -> Columns:
    """Return the columns to read: those given, else the first usual name present.

    Raises:
        PairsError: a given column is missing or there twice, or none of the usual names is present for a needed one.
    """
    image = _column("image", columns[0], IMAGE_NAMES, present, where, needed=modalities != "text")
    caption = _column("caption", columns[1], CAPTION_NAMES, present, where, needed=modalities != "image")
    identity = _column("id", columns[2], ID_NAMES, present, where, needed=False)
    for name in (image, caption, identity):
        if name is not None and list(present).count(name) > 1:
            raise PairsError(
                expected=f"one column {name!r} in {where}",
                found=f"{list(present).count(name)} of that name",
                fix="rename all but one of them",
            )
    return (image, caption, identity)


class PairsBuilder:
    """Collect pairs row by row into `Pairs`.

    Args:
        name: name of the source.
        root: folder in which image files are looked for; None when there are no images.
        captions: whether there are captions.
    """

    def __init__(self, name: str, root: Path | None, *, captions: bool) -> None:
        self.name, self.root, self.has_captions = name, root, captions
        self._ids, self._names, self._captions = Growing(), Growing(), Growing()
        self._others: dict[int, PictureSource] = {}
        self._bad_captions: dict[int, str] = {}
        self._rows, self._pictures = array("q"), array("q")

    def add(
        self,
        row: int,
        pair_id: str | None,
        image: str | PictureSource | None,
        caption: Caption,
        picture_id: str | None = None,
    ) -> None:
        """Append one pair.

        Args:
            row: number of the row of the source.
            pair_id: its id; None takes the image's file name, else the source's name and the row.
            image: a file name below the root, or any other source.
            caption: the caption, None, or a `BadCaption`.
            picture_id: equal for pairs of one picture; None compares the images.
        """
        index = len(self._rows)
        named = image if isinstance(image, str) else None
        if isinstance(image, Path) and self.root is not None:
            image = self.root / image
        self._ids.append(pair_id or named or f"{self.name}-{row:06d}")
        self._names.append(named)
        if image is not None and named is None:
            self._others[index] = image  # type: ignore[assignment]
        if isinstance(caption, BadCaption):
            self._bad_captions[index] = caption.reason
            caption = None
        self._captions.append(caption)
        self._rows.append(row)
        if picture_id is not None:
            self._pictures.append(hash(picture_id))

    def add_bad(self, row: int, reason: str, pair_id: str | None = None, image: str | None = None) -> None:
        """Append a pair that cannot be used, whichever modality is read."""
        self.add(row, pair_id or image, BadPicture(reason), BadCaption(reason), pair_id or image or f"bad row {row}")

    def done(self, *, n_rows: int | None = None, unit: str = "row", notes: Sequence[str] = ()) -> Pairs:
        """Return the pairs."""
        count = len(self._rows)
        images = None if self.root is None else Files(self.root, self._names.done(), self._others)
        keyed = self.root is not None and len(self._pictures) == count and count > 0
        return Pairs(
            self._ids.done(),
            images,
            self._captions.done() if self.has_captions else None,
            name=self.name,
            bad_captions=self._bad_captions,
            rows=np.array(self._rows, dtype=np.int64),
            n_rows=n_rows,
            unit=unit,
            image_keys=np.array(self._pictures, dtype=np.int64) if keyed else None,
            notes=notes,
        )


def pairs_of_rows(
    rows: Iterable[Row],
    columns: Columns,
    root: Path,
    name: str,
    *,
    notes: Sequence[str] = (),
    unit: str = "row",
    picture_column: str | None = None,
) -> Pairs:
    """Return the pairs of rows. A list of captions becomes one pair per caption, all with the same image.

    The id is the value of the id column, else the image's file name, else the table's name and the row.
    """
    image_column, caption_column, id_column = columns
    made = PairsBuilder(name, root if image_column else None, captions=caption_column is not None)
    number = -1
    for number, row in enumerate(Bar(rows, desc="reading pairs", unit="row")):
        cells = row.cells if isinstance(row, BadRow) else row
        pair_id = None if id_column is None else id_of(cells.get(id_column))
        image = None if image_column is None else image_of(cells.get(image_column))
        if isinstance(row, BadRow):
            made.add_bad(number, row.reason, pair_id, image if isinstance(image, str) else None)
            continue
        picture = None if picture_column is None else id_of(cells.get(picture_column)) or f"row {number}"
        for caption in captions_of(None if caption_column is None else cells.get(caption_column)):
            made.add(number, pair_id, image, caption, picture)
    return made.done(n_rows=number + 1, unit=unit, notes=notes)


def picture_column(present: Iterable[str], columns: Columns) -> str | None:
    """Return the column that says which rows show the same picture, unless it is one of the chosen columns."""
    by_folded = {p.casefold(): p for p in present}
    named = (by_folded.get(name) for name in PICTURE_NAMES)
    return next((name for name in named if name is not None and name not in columns), None)


def _column(
    what: str, given: str | None, usual: Sequence[str], present: Sequence[str], where: str, *, needed: bool
) -> str | None:
    if given is not None:
        if given in present:
            return given
        near = nearest_names(given, present) or list(present)
        raise PairsError(
            expected=f"a column {given!r} in {where}",
            found=f"the columns {_listed(present)}",
            fix=f"use one of {_listed(near)}",
        )
    by_folded = {p.casefold(): p for p in reversed(present)}
    for name in usual:
        if name in by_folded:
            return by_folded[name]
    if not needed:
        return None
    tower = {"image": "text", "caption": "vision"}[what]
    other = "captions" if what == "image" else "images"
    raise PairsError(
        expected=f"a column of {what}s in {where}, called {_listed(usual)}",
        found=f"the columns {_listed(present)}" if present else "no columns: it is empty",
        fix=f"name the column with {what}_column (--{what}-column), the character between cells with delimiter "
        f"(--delimiter), or read {other} only (--tower {tower}); a table without a header line needs one",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names) or "none"
