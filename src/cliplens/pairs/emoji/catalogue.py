"""Read the tables of drawings and of names."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cliplens.errors import PairsError
from cliplens.pairs.emoji.asked import GET_THEM, data_folder

_TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))
_GENDERS = frozenset(("2640", "2642"))
_PEOPLE = {"1f468": "1f9d1", "1f469": "1f9d1"}
_JOINER = "200d"
_PRESENTATION = "fe0f"
_COLUMNS = ("file", "codepoints", "name", "group", "subgroup", "gender", "skin_tone", "tags")
_ROLES = "person-role"
_FULL = 18
"""Cells of gender (woman, man, neutral) x skin tone (default and five) of a profession that has them all."""


@dataclass(frozen=True)
class Drawing:
    """A drawing of one emoji by one artist."""

    artist: str
    path: Path
    codepoints: str
    name: str
    """English, with the skin tone after a colon."""
    tags: tuple[str, ...]
    group: str
    subgroup: str
    gender: str
    """woman, man, neutral, mixed, or none where no person is drawn."""
    skin_tone: str
    """default, light, ..., dark, none, or two tones of two persons joined by +."""
    concept: str
    """Code points without skin tone and gender: equal for all drawings of one concept."""
    profession: str
    """The neutral name of a role that is drawn in all 18 cells of gender and skin tone; none for others."""

    @property
    def id(self) -> str:
        """Artist and file name: the id of its first pair."""
        return f"{self.artist}/{self.path.name}"

    @property
    def plain(self) -> bool:
        """Whether it is the drawing of its concept without a chosen skin tone or gender."""
        return self.skin_tone in ("none", "default") and self.gender in ("none", "neutral", "mixed")


def concept_of(codepoints: str) -> str:
    """Return the code points without skin tones and genders.

    >>> concept_of("1f469_1f3fe_200d_1f692"), concept_of("1f408")
    ('1f9d1_200d_1f692', '1f408')
    """
    kept = [p for p in codepoints.split("_") if p not in _TONES and p not in _GENDERS and p != _PRESENTATION]
    while len(kept) > 1 and kept[-1] == _JOINER:
        kept.pop()
    if len(kept) > 1:
        kept[0] = _PEOPLE.get(kept[0], kept[0])
    return "_".join(kept) or codepoints


def drawings(folder: Path, artist: str) -> list[Drawing]:
    """Return the drawings of a folder with `emoji.csv` and `images/`, in the order of the table.

    Raises:
        PairsError: there is no table, or it lacks a column.
    """
    table = folder / "emoji.csv"
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise PairsError(expected=f"a table of drawings at {table}", found=found, fix=GET_THEM) from error
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise PairsError(
            expected=f"the columns {', '.join(_COLUMNS)} in {table}",
            found="no rows" if not rows else f"none called {', '.join(missing)}",
            fix="restore the table",
        )
    professions = _professions(rows)
    return [_drawing(row, folder, artist, professions) for row in rows]


def _professions(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the neutral name of each concept that is a role drawn in every cell."""
    cells: dict[str, set[tuple[str, str]]] = defaultdict(set)
    names: dict[str, str] = {}
    for row in rows:
        if row["subgroup"] == _ROLES:
            concept = concept_of(row["codepoints"])
            cells[concept].add((row["gender"], row["skin_tone"]))
            if row["gender"] == "neutral" and row["skin_tone"] == "default":
                names[concept] = row["name"]
    return {concept: names[concept] for concept, found in cells.items() if len(found) == _FULL and concept in names}


def _drawing(row: Mapping[str, str], folder: Path, artist: str, professions: Mapping[str, str]) -> Drawing:
    concept = concept_of(row["codepoints"])
    return Drawing(
        artist,
        folder / "images" / row["file"],
        row["codepoints"],
        row["name"],
        _split(row["tags"]),
        row["group"],
        row["subgroup"],
        row["gender"] or "none",
        row["skin_tone"] or "none",
        concept,
        professions.get(concept, "none"),
    )


@lru_cache(maxsize=4)
def _names(table: Path) -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
    try:
        found = pq.read_table(table, columns=["codepoints", "language", "name", "tags"]).to_pydict()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise PairsError(
            expected=f"names in many languages at {table}", found=str(error).split("\n")[0], fix=GET_THEM
        ) from error
    names: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = defaultdict(dict)
    rows = zip(found["language"], found["codepoints"], found["name"], found["tags"], strict=True)
    for language, codepoints, name, tags in rows:
        names[language][codepoints] = (name, _split(tags))
    return dict(names)


def named(language: str, *, beside: Path | None = None) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return name and tags by code points in a language.

    Args:
        language: an ISO 639-1 code of the table.
        beside: folder whose neighbour `emoji_languages` holds the table; None takes CLIPLENS_DATA.

    Raises:
        PairsError: there is no such table, or it lacks the language.
    """
    root = data_folder() if beside is None else beside.parent
    names = _names(root / "emoji_languages" / "emoji_languages.parquet")
    if language not in names:
        raise PairsError(
            expected=f"names in the language {language!r}", found=f"the languages {', '.join(names)}", fix=GET_THEM
        )
    return names[language]


def _split(tags: str | None) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in (tags or "").split("|") if tag.strip())
