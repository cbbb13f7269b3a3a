"""Read what is asked for: `emoji:ARTISTS?language=...&names=...&part=...&limit=...`, and where the data are."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cliplens.errors import PairsError, nearest_names

EMOJI_PREFIX = "emoji:"
ARTISTS: Mapping[str, str] = {"noto": "noto_emoji", "twemoji": "twemoji", "fluent": "fluent_emoji"}
"""Folder of each artist below CLIPLENS_DATA."""
_LATIN = ("en", "de", "fr", "es", "pt", "pl", "tr", "vi", "id", "sw")
LANGUAGES = (*_LATIN, "ru", "el", "ar", "fa", "he", "hi", "bn", "th", "zh", "ja", "ko")
"""ISO 639-1 codes of the languages of the names."""
GET_THEM = (
    "set CLIPLENS_DATA to the folder that holds noto_emoji/, twemoji/, fluent_emoji/ and emoji_languages/; "
    "docs/emoji.md says from which public packages they are made, and how"
)
Naming = Literal["name", "tags"]
Part = Literal["all", "trained", "unseen"]
_NAMINGS: tuple[Naming, ...] = ("name", "tags")
_PARTS: tuple[Part, ...] = ("all", "trained", "unseen")
_FORM = "emoji:noto, emoji:twemoji,fluent or emoji:all, followed by ?language=de,ja&names=tags&part=unseen&limit=500"
_EVERY = "all"


@dataclass(frozen=True)
class EmojiSource:
    """Drawings and captions that are asked for.

    >>> EmojiSource.parse("emoji:noto?language=de,ja&names=name,tags").languages
    ('de', 'ja')
    """

    artists: tuple[str, ...]
    """Names of `ARTISTS`, or one folder."""
    languages: tuple[str, ...] = ("en",)
    namings: tuple[Naming, ...] = ("name",)
    """The name, the translators' keywords, or both; each is one caption."""
    part: Part = "all"
    """Drawings of the training ("trained"), held-out ones ("unseen"), or all."""
    limit: int | None = None
    """Number of emoji per artist, chosen by hash."""

    @classmethod
    def parse(cls, text: str) -> "EmojiSource":
        """Return what a name such as `emoji:noto?language=de` asks for.

        Raises:
            PairsError: the form, an artist, a language or an option is unknown, or an option is given twice.
        """
        artists, _, query = text.removeprefix(EMOJI_PREFIX).partition("?")
        options = _options(query)
        unknown = [name for name in options if name not in ("language", "names", "part", "limit")]
        if unknown or not artists:
            raise PairsError(expected=_FORM, found=repr(text), fix="correct the name")
        limit = options.get("limit")
        if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit)):
            raise PairsError(expected="limit=N with N of 1 or more", found=f"limit={limit}", fix="pass limit=500")
        return cls(
            (artists,) if _is_folder(artists) else _chosen("artist", artists, tuple(ARTISTS)),
            _chosen("language", options.get("language", "en"), LANGUAGES),
            _chosen("names", options.get("names", "name"), _NAMINGS),  # type: ignore[arg-type]
            _one_part(options.get("part", "all")),
            None if limit is None else int(limit),
        )

    def folder(self, artist: str) -> Path:
        """Return the folder of an artist.

        Raises:
            PairsError: CLIPLENS_DATA is not set, or has no such folder.
        """
        if artist not in ARTISTS:
            return Path(artist).expanduser()
        folder = data_folder() / ARTISTS[artist]
        if not (folder / "emoji.csv").is_file():
            raise PairsError(expected=f"the drawings of {artist} in {folder}", found="no emoji.csv there", fix=GET_THEM)
        return folder


def is_emoji(source: object) -> bool:
    """Return whether a source is a name `emoji:...`."""
    return isinstance(source, str) and source.startswith(EMOJI_PREFIX)


def data_folder() -> Path:
    """Return the folder of the environment variable CLIPLENS_DATA.

    Raises:
        PairsError: it is not set, or there is no such folder.
    """
    named = os.environ.get("CLIPLENS_DATA")
    if not named or not Path(named).expanduser().is_dir():
        found = f"no folder at {named}" if named else "CLIPLENS_DATA unset"
        raise PairsError(expected="a folder of drawings and their names", found=found, fix=GET_THEM)
    return Path(named).expanduser()


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in (_option(part) for part in query.split("&") if part):
        if name in options:
            both = f"{name}={options[name]} and {name}={value}"
            raise PairsError(expected="each option once", found=both, fix="keep one of the two")
        options[name] = value
    return options


def _option(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals or not value:
        raise PairsError(expected="options as NAME=VALUE after the ?", found=repr(part), fix=f"write {_FORM}")
    return name, value


def _is_folder(artists: str) -> bool:
    return "/" in artists or (artists not in ARTISTS and Path(artists).expanduser().is_dir())


def _chosen(what: str, given: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(known) if given == _EVERY else tuple(dict.fromkeys(given.split(",")))
    for name in names:
        if name not in known:
            near = (nearest_names(name, known) or [known[0]])[0]
            raise PairsError(
                expected=f"{what} of {', '.join(known)}, or all", found=repr(name), fix=f"write for example {near}"
            )
    return names


def _one_part(given: str) -> Part:
    for part in _PARTS:
        if part == given:
            return part
    raise PairsError(expected=f"part of {', '.join(_PARTS)}", found=repr(given), fix="pass part=unseen")
