"""Read images and captions from any source: the path, or the type of the object, selects the reader."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplens.errors import PairsError, nearest_names
from cliplens.pairs.cc3m import is_headless, read_cc3m
from cliplens.pairs.coco import read_json
from cliplens.pairs.columns import Columns, which_columns
from cliplens.pairs.dialect import Quoting
from cliplens.pairs.emoji import is_emoji, read_emoji
from cliplens.pairs.folder import read_folder
from cliplens.pairs.hugging import from_dataset, is_dataset, is_hugging, parquet_columns, read_hugging
from cliplens.pairs.jsonl import read_jsonl
from cliplens.pairs.objects import is_frame, pairs_of_frame, pairs_of_list
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.table import open_table, read_table
from cliplens.pairs.tars import is_tars, read_tars
from cliplens.pictures import AS_SEEN, PictureOptions
from cliplens.sites import Modalities

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = "a CSV, TSV, JSON or JSONL file, parquet or Arrow files, tar shards, hf:owner/name@split, or a folder of images"
_TABLES = {".csv", ".tsv", ".tab"}
_PACKED = {".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar"}
_CHOICES = {"modalities": ("both", "image", "text"), "quoting": ("auto", "minimal", "none")}
_JSON_LINES = {".jsonl", ".ndjson"}
_COLUMNS = ("image_column", "caption_column", "id_column")


def read_pairs(
    source: "Path | str | Iterable[Any]",
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    image_root: Path | str | None = None,
    modalities: Modalities = "both",
    delimiter: str | None = None,
    quoting: Quoting = "auto",
    opening: PictureOptions = AS_SEEN,
) -> Pairs:
    """Return pairs from a source:

    | source | what it is |
    |---|---|
    | `set.csv`, `set.tsv` | a table with a header; a TSV of captions and URLs without one is read as CC3M is |
    | `set.jsonl` | one object per line; `caption` may be a list of captions of one image |
    | `captions_val2017.json` | COCO captions, or a list of objects |
    | `folder/` | images, each with its caption in a .txt file beside it |
    | `shards/*.tar`, `shards/{000..099}.tar` | WebDataset shards; `caption_column`: the caption's ending or JSON key |
    | `set.parquet`, `set.arrow`, a `save_to_disk` folder | Hugging Face datasets on disk |
    | `hf:owner/name:config@split?limit=1000` | Hugging Face datasets by name; with a limit only that much is fetched |
    | `emoji:noto`, `emoji:all?language=de,ja&names=tags` | real drawings and their names, found by CLIPLENS_DATA |
    | a `datasets.Dataset`, a pandas frame | tables in memory |
    | a list of `(image, caption)`, or of dictionaries | images are files, bytes, arrays or pictures |

    Columns that are not named are looked for under their usual names. Image files are found below `image_root`, by
    default the folder of the table. Images are opened when they are used; a pair that cannot be used is set aside then,
    with the reason. Several captions of one image are several pairs, `ID`, `ID#1`, ... `pairs.account()` accounts for
    every row of the source, `pairs.notes` says how it was read.

    Args:
        source: path, name or object.
        image_column: column of images.
        caption_column: column of captions.
        id_column: column of ids.
        image_root: folder of image files.
        modalities: "image" needs no captions, "text" no images.
        delimiter: character between the cells of a table; None finds it.
        quoting: how a table uses quotation marks: "auto", "minimal" or "none" (`cliplens.pairs.dialect.detected`).
        opening: how images are opened: background, orientation, largest size.

    Raises:
        PairsError: there is no such file, no reader for its kind, a column is missing, an option is given that sources
            of this kind do not read, or there is not a single pair.

    >>> read_pairs([("a.png", "a cat"), ("b.png", "a dog")]).captions
    ['a cat', 'a dog']
    """
    columns = (image_column, caption_column, id_column)
    for name, value in (("modalities", modalities), ("quoting", quoting)):
        if value not in _CHOICES[name]:
            choices = ", ".join(map(repr, _CHOICES[name]))
            near = (nearest_names(str(value), _CHOICES[name]) or _CHOICES[name])[0]
            raise PairsError(expected=f"{name} as one of {choices}", found=repr(value), fix=f"pass {name}={near!r}")
    root = None if image_root is None else Path(image_root).expanduser()
    given = [n for n, c in zip(_COLUMNS, columns, strict=True) if c is not None]
    given += ["image_root"] * (root is not None) + ["delimiter"] * (delimiter is not None)
    given += ["quoting"] * (quoting != "auto")
    try:
        _check_read(source, given)
        if isinstance(source, str | Path):
            pairs = _from_path(source, root, columns, modalities, delimiter, quoting)
        else:
            pairs = _from_object(source, root, columns, modalities)
    except OSError as error:
        raise PairsError(
            expected=f"pairs that can be read at {source}",
            found=f"{error.strerror or error}",
            fix="check the path and its permissions",
        ) from error
    if not len(pairs):
        named = source if isinstance(source, str | Path) else f"the {type(source).__name__}"
        raise PairsError(expected="at least one pair", found=f"none in {named}", fix="check the source")
    return pairs if opening == AS_SEEN else pairs.opened_as(opening)


def check_source(
    source: Path | str,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    modalities: Modalities = "both",
    delimiter: str | None = None,
    quoting: Quoting = "auto",
    **_: Any,
) -> None:
    """Check the columns of a table or a parquet file, and that a file is there, before any row is read.

    Sources of other kinds are checked when they are read. Arguments are those of `read_pairs`.

    Raises:
        PairsError: there is nothing at the path, or a column is missing.
    """
    path, columns = Path(source).expanduser(), (image_column, caption_column, id_column)
    kind = path.suffix.lower()
    if not path.is_file():
        if kind in (*_TABLES, *_JSON_LINES, ".json"):
            read_pairs(source)
        return
    headless = kind == ".tsv" and columns == (None, None, None) and delimiter is None and is_headless(path)
    if kind in _TABLES and not headless:
        open_table(path, columns, modalities, delimiter=delimiter, quoting=quoting)
    elif kind == ".parquet":
        which_columns(columns, parquet_columns(path), modalities, str(source))


def _beside(source: Path) -> list[str]:
    """Names of the files in the same folder."""
    try:
        return [path.name for path in source.parent.iterdir()]
    except OSError:
        return []


def _check_read(source: Any, given: list[str]) -> None:
    """Check that a source of this kind reads every option that was given."""
    what, reads = _reads(source)
    unread = [name for name in given if name not in reads]
    if unread:
        options = ", ".join(f"{name} (--{name.replace('_', '-')})" for name in unread)
        raise PairsError(expected=f"options that {what} reads", found=options, fix="leave out what it cannot read")


def _reads(source: Any) -> tuple[str, Collection[str]]:  # noqa: PLR0911  one line per source
    """Return a description of the source, and the names of the options that apply to it."""
    if isinstance(source, Pairs):
        return "a source that is pairs already", ()
    if not isinstance(source, str | Path):
        return "a table in memory", (*_COLUMNS, "image_root")
    if is_emoji(source):
        return "emoji:, whose tables are known,", ()
    if is_tars(str(source)):
        return "a tar shard", ("caption_column",)
    if is_hugging(str(source)) or Path(source).suffix.lower() in (*_JSON_LINES, ".json"):
        return str(source), (*_COLUMNS, "image_root")
    if Path(source).expanduser().is_dir():
        return "a folder of images, each with its caption beside it,", ()
    return "a table", (*_COLUMNS, "image_root", "delimiter", "quoting")


def _from_object(source: Any, root: Path | None, columns: Columns, modalities: Modalities) -> Pairs:
    if isinstance(source, Pairs):
        return source
    if is_dataset(source):
        return from_dataset(source, columns=columns, modalities=modalities, image_root=root)
    if hasattr(source, "column_names") and isinstance(source, Mapping):
        splits = ", ".join(map(repr, list(source)[:8]))
        raise PairsError(
            expected="one split of a dataset",
            found=f"a {type(source).__name__} of {splits}",
            fix="pass one of its splits",
        )
    if is_frame(source):
        return pairs_of_frame(source, columns, root or Path(), modalities)
    in_pandas = type(source).__module__.split(".")[0] == "pandas"
    if hasattr(source, "__iter__") and not in_pandas and not isinstance(source, bytes | Mapping):
        return pairs_of_list(source, columns, root or Path(), modalities)
    raise PairsError(
        expected="a path, a datasets.Dataset, a pandas frame or a list of (image, caption)",
        found=f"a {type(source).__module__}.{type(source).__qualname__}",
        fix="pass a list of (image, caption)",
    )


def _way_on(name: str, columns: tuple[str | None, ...]) -> str:
    if name.startswith("world:") and any(columns):
        return "leave out names of columns: pairs of the world have none"
    return "write world:20480" if name.startswith("world") else "check the path"


def _from_path(  # noqa: PLR0911  one line per source
    path: Path | str,
    root: Path | None,
    columns: Columns,
    modalities: Modalities,
    delimiter: str | None,
    quoting: Quoting,
) -> Pairs:
    if not str(path).strip() or "\0" in str(path):
        raise PairsError(expected=KNOWN, found=f"the name {str(path)!r}", fix="name a file or a folder")
    if is_emoji(path):
        return read_emoji(str(path), modalities)
    if "://" in str(path):
        raise PairsError(expected=KNOWN, found=f"the URL {path}", fix="download it and name the file")
    source = Path(path).expanduser()
    name = str(path) if str(path).startswith("hf:") else str(source)
    beside = root or source.parent
    kind = source.suffix.lower()
    if is_tars(name):
        return read_tars(name, columns[1], captions=modalities != "image")
    if is_hugging(name):
        return read_hugging(name, beside, columns, modalities)
    if source.is_dir():
        return read_folder(source, modalities)
    if not source.exists():
        near = get_close_matches(source.name, _beside(source), n=3, cutoff=0.75)
        listed = f"; near it are {', '.join(near)}" if near else ""
        raise PairsError(expected=KNOWN, found=f"nothing at {source}{listed}", fix=_way_on(name.casefold(), columns))
    if kind in _PACKED:
        raise PairsError(expected=KNOWN, found=f"the packed file {source}", fix="unpack it and name the file inside")
    if kind == ".tsv" and columns == (None, None, None) and delimiter is None and is_headless(source):
        return read_cc3m(source, beside)
    if kind in _TABLES:
        return read_table(source, beside, columns, modalities, delimiter=delimiter, quoting=quoting)
    if kind in _JSON_LINES:
        return read_jsonl(source, beside, columns, modalities)
    if kind == ".json":
        return read_json(source, root, columns, modalities)
    raise PairsError(
        expected=KNOWN,
        found=f"a file ending in {source.suffix or 'nothing'!r} at {source}",
        fix="convert the file, or rename it with the ending of its format",
    )
