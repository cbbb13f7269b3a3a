"""One verb for every source: the path says which reader is meant."""

from pathlib import Path

from cliplens.errors import PairsError
from cliplens.pairs.cc3m import is_headless, read_cc3m
from cliplens.pairs.coco import read_json
from cliplens.pairs.folder import read_folder
from cliplens.pairs.hugging import is_hugging, read_hugging
from cliplens.pairs.jsonl import read_jsonl
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.table import read_table
from cliplens.pairs.tars import is_tars, read_tars
from cliplens.sites import Modalities

KNOWN = "a CSV, TSV, JSON or JSONL file, parquet or Arrow files, tar shards, hf:owner/name@split, or a folder of images"
_TABLES = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = {".jsonl", ".ndjson"}


def read_pairs(
    path: Path | str,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    image_root: Path | str | None = None,
    modalities: Modalities = "both",
) -> Pairs:
    """Pairs from what the path says:

    | path | source |
    |---|---|
    | `set.csv`, `set.tsv` | a table with a header; a TSV of captions and URLs without one is read as CC3M is |
    | `set.jsonl` | one object per line; `caption` may be a list of captions of one image |
    | `captions_val2017.json` | COCO captions, or a list of objects |
    | `folder/` | images, each with its caption in a .txt file beside it |
    | `shards/*.tar`, `shards/{000..099}.tar` | WebDataset shards; `caption_column`: the caption's ending or JSON key |
    | `set.parquet`, `set.arrow`, a `save_to_disk` folder | Hugging Face datasets on disk |
    | `hf:owner/name:config@split?limit=1000` | Hugging Face datasets by name; with a limit only that much is fetched |

    Columns that are not named are looked for under their usual names. Image files are found below `image_root`, by
    default the folder the table lies in. Nothing is opened yet: what is wrong with a pair shows when it is used.
    Several captions of one image are several pairs, `ID`, `ID#1`, ...

    Args:
        modalities: "image" needs no captions, "text" no images.

    Raises:
        PairsError: no such file, a kind of file nobody reads, a missing column, or not a single pair.
    """
    columns = (image_column, caption_column, id_column)
    source = Path(path).expanduser()
    root = None if image_root is None else Path(image_root).expanduser()
    pairs = _read(str(path) if str(path).startswith("hf:") else str(source), source, root, columns, modalities)
    if not len(pairs):
        raise PairsError(expected="at least one pair", found=f"none in {path}", fix="check the path and what is in it")
    return pairs


def _read(  # noqa: PLR0911  one line per source
    name: str,
    source: Path,
    root: Path | None,
    columns: tuple[str | None, str | None, str | None],
    modalities: Modalities,
) -> Pairs:
    beside = root or source.parent
    kind = source.suffix.lower()
    if is_tars(name):
        return read_tars(name, columns[1])
    if is_hugging(name):
        return read_hugging(name, beside, columns, modalities)
    if source.is_dir():
        return read_folder(source, modalities)
    if not source.exists():
        raise PairsError(expected=KNOWN, found=f"nothing at {source}", fix="check the path")
    if kind == ".tsv" and columns == (None, None, None) and is_headless(source):
        return read_cc3m(source, beside)
    if kind in _TABLES:
        return read_table(source, _TABLES[kind], beside, columns, modalities)
    if kind in _JSON_LINES:
        return read_jsonl(source, beside, columns, modalities)
    if kind == ".json":
        return read_json(source, root, columns, modalities)
    raise PairsError(
        expected=KNOWN,
        found=f"a file ending in {source.suffix or 'nothing'!r} at {source}",
        fix="convert it, or give it the ending that says what it is",
    )
