"""JSON files: COCO's captions, and plain lists of objects."""

import json
from pathlib import Path
from typing import Any

from cliplens.errors import PairsError
from cliplens.pairs.columns import Columns, pairs_of_rows, which_columns
from cliplens.pairs.pairs import Pairs
from cliplens.sites import Modalities


def read_json(path: Path, root: Path | None, columns: Columns, modalities: Modalities) -> Pairs:
    """Pairs of a JSON file: COCO's `images` and `annotations`, one pair per caption; or a list of objects.

    COCO's images are looked for in `root`, else in the folder the annotations name (`captions_val2017.json`:
    `val2017`) beside or above the file.

    Raises:
        PairsError: it is neither.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise PairsError(expected=f"JSON in {path}", found=str(error), fix="mend the file") from error
    if isinstance(found, dict) and {"images", "annotations"} <= found.keys():
        where = root or _coco_folder(path)
        return pairs_of_rows(_coco_rows(found), ("image", "caption", None), where, path.stem)
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        present = list(dict.fromkeys(name for row in found for name in row))
        chosen = which_columns(columns, present, modalities, str(path))
        return pairs_of_rows(found, chosen, root or path.parent, path.stem)
    raise PairsError(
        expected="COCO captions ('images' and 'annotations') or a list of objects",
        found=f"{type(found).__name__} in {path}",
        fix="convert it, for example to JSON lines",
    )


def _coco_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    captions: dict[Any, list[str]] = {}
    for annotation in found["annotations"]:
        if "caption" in annotation:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    return [{"image": image["file_name"], "caption": captions.get(image["id"], [])} for image in found["images"]]


def _coco_folder(path: Path) -> Path:
    split = path.stem.rpartition("_")[2]
    for folder in (path.parent / split, path.parent.parent / split):
        if folder.is_dir():
            return folder
    return path.parent
