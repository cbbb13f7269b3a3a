"""Read JSON files: COCO's captions, and plain lists of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliplens.errors import PairsError
from cliplens.pairs.cells import captions_of, id_of
from cliplens.pairs.columns import (
    BadRow,
    Columns,
    PairsBuilder,
    Row,
    pairs_of_rows,
    picture_column,
    which_columns,
)
from cliplens.pairs.encoding import decoded
from cliplens.pairs.jsonl import read_jsonl
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities


def read_json(path: Path, root: Path | None, columns: Columns, modalities: Modalities) -> Pairs:
    """Return the pairs of a JSON file: COCO's `images` and `annotations`, one pair per caption; or a list of objects.

    A file with one object per line is read as JSON lines.

    COCO's images are looked for in `root`, else in the folder the annotations name (`captions_val2017.json`:
    `val2017`) beside or above the file. A row of the account is an image.

    Raises:
        PairsError: the file has neither format, or the annotations are not captions.
    """
    try:
        found = json.loads(decoded(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return read_jsonl(path, root or path.parent, columns, modalities)
        found = str(error) if path.stat().st_size else "an empty file"
        raise PairsError(expected=f"JSON in {path}", found=found, fix="correct the JSON in the file") from error
    if isinstance(found, dict) and isinstance(found.get("images"), list) and isinstance(found.get("annotations"), list):
        return _coco_pairs(path, found["images"], found["annotations"], root or _coco_folder(path), modalities)
    if isinstance(found, list) and any(isinstance(row, dict) for row in found):
        present = list(dict.fromkeys(name for row in found if isinstance(row, dict) for name in row))
        chosen = which_columns(columns, present, modalities, str(path))
        picture = picture_column(present, chosen)
        return pairs_of_rows(_objects(found), chosen, root or path.parent, path.stem, picture_column=picture)
    keys = f" with the keys {', '.join(map(repr, list(found)[:8]))}" if isinstance(found, dict) else ""
    raise PairsError(
        expected="COCO captions ('images' and 'annotations') or a list of objects",
        found=f"{type(found).__name__}{keys} in {path}",
        fix="convert the file, for example to JSON lines",
    )


def _objects(found: list[Any]) -> Iterator[Row]:
    for number, row in enumerate(found):
        yield row if isinstance(row, dict) else BadRow(f"entry {number} is not an object but a {type(row).__name__}")


def _coco_pairs(path: Path, images: list[Any], annotations: list[Any], root: Path, modalities: Modalities) -> Pairs:
    captions, bad = _captions_by_image(annotations)
    twice = _given_twice(images)
    if modalities != "image" and annotations and not captions:
        raise PairsError(
            expected=f"captions in the annotations of {path}",
            found="none with 'image_id' and 'caption'",
            fix="pass the captions_*.json of COCO, or read images only (--tower vision)",
        )
    made = PairsBuilder(path.stem, root, captions=modalities != "image")
    row = 0
    for row, image in enumerate(images, start=1):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            made.add_bad(row, f"image {row} of the list has no 'file_name'")
            continue
        if id_of(image.get("id")) in twice:
            captions.pop(_key(image.get("id")), None)
            made.add_bad(row, f"the id {image.get('id')!r} is that of several images", None, image["file_name"])
            continue
        said = captions.pop(_key(image.get("id")), [None]) if modalities != "image" else [None]
        for value in said:
            for caption in captions_of(value):
                made.add(row, None, image["file_name"], caption, f"image {row}")
    for key, values in captions.items():
        row += 1
        shown = repr(key) if isinstance(key, str) else "(missing, or no single value)"
        made.add_bad(
            row,
            f"its image_id {shown} is not among the images ({len(values)} captions)",
            f"image_id {key}" if isinstance(key, str) else None,
        )
    for reason in bad:
        row += 1
        made.add_bad(row, reason)
    return made.done(n_rows=row, unit="image")


def _captions_by_image(annotations: list[Any]) -> tuple[dict[Any, list[Any]], list[str]]:
    captions: dict[Any, list[Any]] = {}
    bad = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            bad.append(f"annotation {number} is not an object but a {type(annotation).__name__}")
        elif "caption" in annotation:
            captions.setdefault(_key(annotation.get("image_id")), []).append(annotation["caption"])
    return captions, bad


def _key(value: Any) -> Any:
    """An id as it can be looked up; containers and missing ids are never equal to another's."""
    found = id_of(value)
    return object() if found is None else found


def _given_twice(images: list[Any]) -> set[str]:
    """Return the ids that several image files share. A caption with such an id cannot be assigned to an image."""
    files: dict[str, set[Any]] = {}
    for image in images:
        if isinstance(image, dict) and (key := id_of(image.get("id"))) is not None:
            files.setdefault(key, set()).add(str(image.get("file_name")))
    return {key for key, names in files.items() if len(names) > 1}


def _coco_folder(path: Path) -> Path:
    split = path.stem.rpartition("_")[2]
    for folder in (path.parent / split, path.parent.parent / split):
        if folder.is_dir():
            return folder
    return path.parent
