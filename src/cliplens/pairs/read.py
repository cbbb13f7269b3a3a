"""One verb for every local source: the path says which reader is meant."""

from pathlib import Path
from typing import Literal

from cliplens.errors import PairsError
from cliplens.pairs.folder import read_folder
from cliplens.pairs.jsonl import read_jsonl
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.table import read_table

Wanted = Literal["both", "image", "text"]
_TABLES = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson"}


def read_pairs(
    path: Path | str,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    image_root: Path | str | None = None,
    modalities: Wanted = "both",
) -> Pairs:
    """Pairs from a CSV or TSV file, a JSON-lines file, or a folder of images with a .txt caption beside each.

    Columns that are not named are looked for under their usual names. Image files are found below `image_root`, by
    default the folder the table lies in. Nothing is opened yet: what is wrong with a pair shows when it is used.

    Args:
        modalities: "image" needs no captions, "text" no images.

    Raises:
        PairsError: no such file, a kind of file nobody reads, a missing column, or not a single pair.
    """
    source = Path(path).expanduser()
    root = Path(image_root).expanduser() if image_root is not None else source.parent
    if source.is_dir():
        pairs = read_folder(source, modalities)
    elif not source.exists():
        raise PairsError(
            expected="a CSV, TSV or JSONL file, or a folder of images",
            found=f"nothing at {source}",
            do="check the path",
        )
    elif (kind := source.suffix.lower()) in _TABLES:
        columns = (image_column, caption_column, id_column)
        pairs = read_table(source, _TABLES[kind], root, columns, modalities)
    elif kind in _JSON_LINES:
        pairs = read_jsonl(source, root, (image_column, caption_column, id_column), modalities)
    else:
        raise PairsError(
            expected="a CSV, TSV or JSONL file, or a folder of images",
            found=f"a file ending in {source.suffix or 'nothing'!r} at {source}",
            do="convert it, or give it the ending that says what it is",
        )
    if not len(pairs):
        raise PairsError(expected="at least one pair", found=f"none in {source}", do="check the path and what is in it")
    return pairs
