"""Read the usual data sets for studies of bias from disk: CelebA, FairFace, UTKFace, Waterbirds."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cliplens import keys
from cliplens.errors import InputError, unknown_name
from cliplens_plugins.bias.drawings import read_drawings
from cliplens_plugins.bias.pictures import LabelledPictures

TRAIN_SHARE = 0.5
"""Share of training pictures in a data set without a split."""
_GENDERS = {"Male": "man", "Female": "woman", "male": "man", "female": "woman"}


def read_celeba(folder: Path | str, *, group: str = "Male", target: str = "Blond_Hair") -> LabelledPictures:
    """Return CelebA: `list_attr_celeba.txt` (or .csv), `list_eval_partition.txt` (or .csv), `img_align_celeba/`.

    `group` and `target` are names of attributes, whose values are -1 and 1. Partition 0 is for training, partition 2
    for testing; partition 1 is left out.

    Raises:
        InputError: a file is missing or has another format, or an attribute is unknown.
    """
    root = Path(folder)
    rows = list(_celeba_rows(root, "list_attr_celeba"))
    split = dict(_celeba_split(root))
    found = []
    for name, attributes in rows:
        for wanted in (group, target):
            if wanted not in attributes:
                raise unknown_name("attribute of CelebA", wanted, attributes)
        if split.get(name) in ("0", "2"):
            pair = (int(attributes[group] == "1"), int(attributes[target] == "1"))
            found.append((_celeba_picture(root, name), *pair, split[name] == "0"))
    words = {"Male": ("woman", "man"), "Young": ("old person", "young person")}
    return _made("celeba", found, words.get(group, _with_and_without(group)), _with_and_without(target), root)


def read_fairface(folder: Path | str, *, group: str = "gender", target: str = "age") -> LabelledPictures:
    """Return FairFace: `fairface_label_train.csv`, `fairface_label_val.csv`, pictures in `train/` and `val/`.

    `group` and `target` are columns: `age`, `gender` or `race`. The validation pictures are for testing.

    Raises:
        InputError: a file is missing or has no such column.
    """
    root = Path(folder)
    found = []
    for name, train in (("fairface_label_train.csv", True), ("fairface_label_val.csv", False)):
        for row in _csv_rows(root / name, ("file", group, target)):
            found.append((root / row["file"], row[group], row[target], train))
    return _of_words("fairface", found, root)


def read_utkface(folder: Path | str, *, group: str = "gender", target: str = "age") -> LabelledPictures:
    """Return UTKFace: pictures named `AGE_GENDER_RACE_DATE.jpg`, in the folder or below it.

    Ages are grouped: child (to 17), young (18 to 39), middle-aged (40 to 59), old. Half of the pictures, chosen by
    name, are for training. Pictures whose names lack a part are skipped; the data set contains a few.

    Raises:
        InputError: no picture has such a name, or an attribute is unknown.
    """
    root = Path(folder)
    names = ("age", "gender", "race")
    for wanted in (group, target):
        if wanted not in names:
            raise unknown_name("attribute of UTKFace", wanted, names)
    found = []
    for path in sorted(root.rglob("*.jpg")):
        parts = path.name.split("_")
        if len(parts) < 4 or not all(p.isdigit() for p in parts[:3]) or int(parts[1]) > 1 or int(parts[2]) > 4:
            continue
        values = {"age": _age(int(parts[0])), "gender": ("man", "woman")[int(parts[1])], "race": _RACES[int(parts[2])]}
        train = bool(keys.held_out(keys.pair_keys([path.name]), TRAIN_SHARE)[0])
        found.append((path, values[group], values[target], train))
    return _of_words("utkface", found, root)


def read_waterbirds(folder: Path | str) -> LabelledPictures:
    """Return Waterbirds: `metadata.csv` with `img_filename`, `y`, `place`, `split`. The group is the place.

    Split 0 is for training, split 2 for testing; split 1 is left out.

    Raises:
        InputError: the file is missing or has no such column.
    """
    root = Path(folder)
    found = [
        (root / row["img_filename"], int(row["place"]), int(row["y"]), row["split"] == "0")
        for row in _csv_rows(root / "metadata.csv", ("img_filename", "y", "place", "split"))
        if row["split"] in ("0", "2")
    ]
    return _made("waterbirds", found, ("land", "water"), ("landbird", "waterbird"), root)


READERS: Mapping[str, Callable[..., LabelledPictures]] = {
    "celeba": read_celeba,
    "emoji": read_drawings,
    "fairface": read_fairface,
    "utkface": read_utkface,
    "waterbirds": read_waterbirds,
}


def read_bias_set(spec: str, *, group: str | None = None, target: str | None = None) -> LabelledPictures:
    """Return the pictures of NAME:FOLDER, such as `waterbirds:data/waterbirds`.

    Args:
        spec: name (celeba, fairface, utkface or waterbirds), a colon, and the folder; or emoji:noto or emoji:all
            (drawings of the embedded model, see `drawings`).
        group: attribute whose values are the groups; None takes the usual one.
        target: attribute to classify; None takes the usual one.

    Raises:
        InputError: the data set, the folder or an attribute is unknown.
    """
    name, colon, folder = spec.partition(":")
    if not colon or name not in READERS:
        raise unknown_name("data set, as NAME:FOLDER", name, READERS)
    if name != "emoji" and not Path(folder).is_dir():
        raise InputError(expected=f"the folder of {name}", found=f"no folder {folder!r}", fix="pass an existing folder")
    asked = {k: v for k, v in (("group", group), ("target", target)) if v is not None}
    if asked and name == "waterbirds":
        raise InputError(
            expected="no --group and --target for waterbirds", found=", ".join(asked), fix="leave them out"
        )
    return READERS[name](folder, **asked)


_RACES = ("White person", "Black person", "Asian person", "Indian person", "person of another origin")


def _age(years: int) -> str:
    return (
        "child"
        if years < 18
        else "young person"
        if years < 40
        else "middle-aged person"
        if years < 60
        else "old person"
    )


def _with_and_without(attribute: str) -> tuple[str, str]:
    words = attribute.replace("_", " ").lower()
    return f"person without {words}", f"person with {words}"


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    expected=f"the columns {', '.join(columns)} in {path}",
                    found=f"no {missing[0]!r}",
                    fix="use the file of the data set unchanged",
                )
            yield from reader
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _celeba_rows(root: Path, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    table = root / f"{name}.csv"
    if table.exists():
        for row in _csv_rows(table, ("image_id",)):
            yield row["image_id"], row
        return
    lines = _lines(root / f"{name}.txt")
    if len(lines) < 3:
        raise InputError(
            expected=f"a line with a count, a line of attributes and one line per picture in {root / name}.txt",
            found=f"{len(lines)} lines",
            fix="use the file of CelebA unchanged",
        )
    attributes = lines[1].split()
    for line in lines[2:]:
        picture, *values = line.split()
        if len(values) != len(attributes):
            raise InputError(
                expected=f"{len(attributes)} values for {picture}", found=f"{len(values)}", fix="correct that line"
            )
        yield picture, dict(zip(attributes, values, strict=True))


def _celeba_split(root: Path) -> Iterator[tuple[str, str]]:
    table = root / "list_eval_partition.csv"
    if table.exists():
        for row in _csv_rows(table, ("image_id", "partition")):
            yield row["image_id"], row["partition"]
        return
    for line in _lines(root / "list_eval_partition.txt"):
        picture, _, part = line.partition(" ")
        yield picture, part.strip()


def _celeba_picture(root: Path, name: str) -> Path:
    nested = root / "img_align_celeba" / "img_align_celeba"
    return (nested if nested.is_dir() else root / "img_align_celeba") / name


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        expected=f"the file {path}",
        found=getattr(error, "strerror", None) or str(error),
        fix="pass the folder of the data set",
    )


def _of_words(name: str, found: Sequence[tuple[Path, str, str, bool]], root: Path) -> LabelledPictures:
    groups = sorted({group for _, group, _, _ in found})
    targets = sorted({target for _, _, target, _ in found})
    numbered = [(path, groups.index(g), targets.index(t), train) for path, g, t, train in found]
    return _made(name, numbered, _said(groups), _said(targets), root)


def _said(values: Sequence[str]) -> list[str]:
    """Return the words that name the values in prompts."""
    return [_GENDERS.get(v, f"person aged {v}" if v[:1].isdigit() else v) for v in values]


def _made(
    name: str, found: Sequence[tuple[Path, int, int, bool]], groups: Sequence[str], targets: Sequence[str], root: Path
) -> LabelledPictures:
    if not found:
        raise InputError(expected=f"pictures of {name} in {root}", found="none", fix="pass the folder of the data set")
    paths, group, target, train = zip(*found, strict=True)
    return LabelledPictures(
        name,
        tuple(paths),
        np.array(group),
        np.array(target),
        tuple(groups),
        tuple(targets),
        np.array(train, dtype=bool),
    )
