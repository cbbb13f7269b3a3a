"""Tag words by kind: with TextBlob's lexicon, the files of NLTK's tagger, or a table of one's own."""

import csv
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from cliplens.errors import InputError

Kind = Literal["noun", "verb", "adjective", "relation", "number", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)[:-1]
"""The kinds that are compared; all further words are "other"."""
INSTALL = "pip install 'cliplens[words]', or pass a table of words and kinds: --tagger words.csv"
_OF_TAG: tuple[tuple[str, Kind], ...] = (
    ("NN", "noun"),
    ("VB", "verb"),
    ("JJ", "adjective"),
    ("IN", "relation"),
    ("TO", "relation"),
    ("RP", "relation"),
    ("CD", "number"),
)
_BE, _HAVE = ("be", "is", "are", "was", "were", "been", "being", "am"), ("has", "have", "had", "having")
_GRAMMAR = frozenset((*_BE, *_HAVE, "do", "does", "did", "doing"))
_REASONS, _COMPARISONS = ("that", "because", "if", "whether", "unless", "since"), ("than", "as", "while", "although")
_CONJUNCTIONS = frozenset((*_REASONS, *_COMPARISONS, "though"))
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_NLTK = "averaged_perceptron_tagger_eng.{}.json"


@runtime_checkable
class Tagger(Protocol):
    """Splits a caption into words and gives each its kind."""

    name: str
    language: str | None
    """Language whose words it knows, as a code of two letters; None for any."""

    def tagged(self, caption: str) -> list[tuple[str, Kind]]:
        """Return the words of a caption in lower case, each with its kind."""


def kind_of_tag(word: str, tag: str) -> Kind:
    """Return the kind of a word with a tag of the Penn treebank.

    Prepositions and particles are relations; conjunctions, and the forms of be, have and do, are "other".

    >>> kind_of_tag("above", "IN"), kind_of_tag("because", "IN"), kind_of_tag("rings", "NNS"), kind_of_tag("is", "VBZ")
    ('relation', 'other', 'noun', 'other')
    """
    if word in _GRAMMAR or word in _CONJUNCTIONS:
        return "other"
    return next((kind for start, kind in _OF_TAG if tag.startswith(start)), "other")


def words_in(caption: str) -> list[str]:
    """Return the words of a caption in lower case; in scripts without spaces, what stands between punctuation.

    >>> words_in("A T-shirt, on 2 dogs.")
    ['a', 't-shirt', 'on', '2', 'dogs']
    """
    return _WORD.findall(caption.lower())


class LexiconTagger:
    """TextBlob's tagger for English: a lexicon of 94,000 words and rules for endings, which ship in its package.

    Raises:
        InputError: TextBlob is not installed.
    """

    name = "TextBlob's lexicon (English)"
    language: str | None = "en"

    def __init__(self) -> None:
        try:
            from textblob.en import tag
        except ImportError as error:
            raise InputError(expected="a tagger of English words", found="no package textblob", fix=INSTALL) from error
        self._tag = tag

    def tagged(self, caption: str) -> list[tuple[str, Kind]]:
        """Return the words of a caption in lower case, each with its kind."""
        words = words_in(caption)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # TextBlob leaves the file of its lexicon to be closed
            return self._tagged(words)

    def _tagged(self, words: list[str]) -> list[tuple[str, Kind]]:
        tags = self._tag(" ".join(words), tokenize=False) if words else []
        if [word for word, _ in tags] != words:  # it splits some words again: then one at a time
            tags = [(word, next((tag for _, tag in self._tag(word, tokenize=False)), "")) for word in words]
        return [(word, kind_of_tag(word, tag)) for word, tag in tags]


class NltkTagger:
    """NLTK's averaged perceptron for English, from a folder with its three JSON files. Nothing is downloaded.

    Args:
        folder: folder with `averaged_perceptron_tagger_eng.weights.json`, `.tagdict.json` and `.classes.json`.

    Raises:
        InputError: NLTK is not installed, or a file is missing or damaged.
    """

    name = "NLTK's averaged perceptron (English)"
    language: str | None = "en"

    def __init__(self, folder: Path) -> None:
        try:
            from nltk.tag.perceptron import PerceptronTagger
        except ImportError as error:
            raise InputError(expected="NLTK, to use its tagger", found="no package nltk", fix=INSTALL) from error
        self._tagger = PerceptronTagger(load=False)
        self._tagger.model.weights = _read(folder, "weights")
        self._tagger.tagdict = _read(folder, "tagdict")
        self._tagger.classes = self._tagger.model.classes = set(_read(folder, "classes"))

    def tagged(self, caption: str) -> list[tuple[str, Kind]]:
        """Return the words of a caption in lower case, each with its kind."""
        return [(word, kind_of_tag(word, tag)) for word, tag in self._tagger.tag(words_in(caption))]


def _read(folder: Path, part: str) -> Any:
    file = folder / _NLTK.format(part)
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            expected=f"a file of NLTK's tagger at {file}",
            found=getattr(error, "strerror", None) or str(error),
            fix="unpack averaged_perceptron_tagger_eng.zip of nltk_data there",
        ) from error


class TableTagger:
    """Kinds from a CSV file with the columns `word` and `kind`, for any language. Words that it lacks are "other".

    Raises:
        InputError: the file cannot be read, lacks a column, or holds another kind.
    """

    name = "a table of one's own"
    language: str | None = None

    def __init__(self, file: Path) -> None:
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened:
                rows: Sequence[dict[str, str]] = list(csv.DictReader(opened))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise _not_a_table(file, getattr(error, "strerror", None) or str(error)) from error
        if not rows or not {"word", "kind"} <= set(rows[0]):
            raise _not_a_table(file, f"the columns {', '.join(rows[0])}" if rows else "no rows")
        self._kinds: dict[str, Kind] = {}
        for row in rows:
            if row["kind"] not in get_args(Kind):
                raise _not_a_table(file, f"the kind {row['kind']!r} of {row['word']!r}")
            self._kinds[row["word"].strip().lower()] = row["kind"]  # type: ignore[assignment]

    def tagged(self, caption: str) -> list[tuple[str, Kind]]:
        """Return the words of a caption in lower case, each with its kind."""
        return [(word, self._kinds.get(word, "other")) for word in words_in(caption)]


def _not_a_table(file: Path, found: str) -> InputError:
    return InputError(
        expected=f"a CSV file of words at {file}, with the columns word and kind ({', '.join(get_args(Kind))})",
        found=found,
        fix="write for example the lines word,kind and dog,noun",
    )


def open_tagger(given: Path | None) -> Tagger:
    """Return TextBlob's tagger for None, NLTK's for a folder, and the kinds of a table for a file.

    Raises:
        InputError: the package or the files are missing.
    """
    if given is None:
        return LexiconTagger()
    return NltkTagger(given) if given.is_dir() else TableTagger(given)


def check_language(tagger: Tagger, tagged: str, known: Sequence[str] | None) -> None:
    """Check that captions are in the language to tag, and that the tagger knows its words.

    Args:
        tagger: the tagger.
        tagged: the language to tag; English may be written en, en-GB, eng or English.
        known: languages of the captions; None where no column says them.

    Raises:
        InputError: no caption is in that language, or the tagger is one of another.
    """
    if known is not None and tagged not in known:
        raise InputError(
            expected=f"--tagged with a language of the captions: {', '.join(sorted(set(known)))}",
            found=repr(tagged),
            fix="pass one of these, and a --tagger of that language",
        )
    if tagger.language is not None and not tagged.casefold().startswith(tagger.language):
        raise InputError(
            expected=f"--tagged with a language that {tagger.name} knows: {tagger.language}",
            found=repr(tagged),
            fix="leave --tagged out, or pass a table of words of that language: --tagger words.csv",
        )
