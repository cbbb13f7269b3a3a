"""Map names of latents to a fixed vocabulary, with a confidence, so that runs can be compared."""

import csv
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from cliplens.errors import InputError
from cliplens.files import atomic_write
from cliplens_plugins.words.taggers import words_in

How = Literal["equal", "inflected", "part", "nearest", "none"]
_INDEX = ("noun", "verb", "adj", "adv")
_LEMMA = re.compile(r"^([^\s]+) [nvar] ")
_ENDINGS: tuple[tuple[str, str], ...] = (
    *(("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""), ("ied", "y"), ("ed", "")),
    *(("ed", "e"), ("ing", ""), ("ing", "e"), ("est", ""), ("er", "")),
)
_SHORTEST = 3
_NAMED = 5
"""Repeated entries that are named."""
_EMPTY = frozenset(("a", "an", "the", "of", "in", "on", "at", "with", "and", "or", "to", "for", "by", "is", "are"))


@dataclass(frozen=True)
class Label:
    """A name of a latent in a fixed vocabulary."""

    name: str
    label: str | None
    """Entry of the vocabulary; None where none fits."""
    confidence: float
    """In [0, 1]: 1 for an equal or inflected entry; the share of the name's words that the entry covers; or the model's
    probability of the nearest entry among those given, which is high in a short list even if no entry fits. 0 without
    a label."""
    how: How


class Vocabulary:
    """A fixed list of labels, from a text file, a list, or the index files of WordNet.

    >>> Vocabulary(["ring", "blue star"]).label("two rings")
    Label(name='two rings', label='ring', confidence=0.5, how='part')
    """

    def __init__(self, entries: Sequence[str]) -> None:
        first: dict[str, str] = {}
        repeated: list[str] = []
        for entry in filter(None, map(str.strip, entries)):
            if first.setdefault(entry.casefold(), entry) is not entry:
                repeated.append(entry)
        self.entries, self.repeated = tuple(first.values()), tuple(repeated)
        self.blank = len(entries) - len(self.entries) - len(repeated)
        if not self.entries:
            raise InputError(expected="a vocabulary of one word or more", found="none", fix="pass one entry per line")
        self._known = {_key(entry): entry for entry in reversed(self.entries)}

    @classmethod
    def read(cls, path: Path) -> "Vocabulary":
        """Return the lines of a text file, or the lemmas of a folder with WordNet's `index.noun` and so on.

        Raises:
            InputError: there is no such file or folder, or it holds nothing.
        """
        try:
            if path.is_dir():
                return cls(_of_wordnet(path))
            return cls(path.read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                expected=f"a text file with one label per line, or a folder of WordNet's dict files, at {path}",
                found=getattr(error, "strerror", None) or str(error),
                fix="pass --vocabulary labels.txt",
            ) from error

    @property
    def left_out(self) -> str:
        """A sentence on blank lines and on entries that are there already, in any letter case; "" if there are none.

        >>> Vocabulary(["ring", "", "Ring"]).left_out
        "Of 3 lines of the vocabulary, 1 is an entry. Left out: 1 blank line, 1 repeated entry ('Ring')."
        """
        if not self.blank and not self.repeated:
            return ""
        kept, lines = len(self.entries), len(self.entries) + len(self.repeated) + self.blank
        said = [f"{self.blank:,} blank line{'s' * (self.blank != 1)}"] if self.blank else []
        if self.repeated:
            some = ", ".join(map(repr, self.repeated[:_NAMED])) + ", ..." * (len(self.repeated) > _NAMED)
            entries = "entry" if len(self.repeated) == 1 else "entries"
            said.append(f"{len(self.repeated):,} repeated {entries} ({some})")
        are = "is an entry" if kept == 1 else "are entries"
        return f"Of {lines:,} lines of the vocabulary, {kept:,} {are}. Left out: {', '.join(said)}."

    def label(self, name: str) -> Label:
        """Return the entry that equals a name, then one it is an inflection of, then one that covers most of its words.

        Among entries that cover as many words, the longest counts, then the one whose words come last.
        """
        whole = _key(name)
        if not whole:
            return Label(name, None, 0.0, "none")
        if whole in self._known:
            return Label(name, self._known[whole], 1.0, "equal")
        for form in _base_forms(whole):
            if form in self._known:
                return Label(name, self._known[form], 1.0, "inflected")
        words = [word for word in words_in(unicodedata.normalize("NFC", name)) if word not in _EMPTY]
        for width in range(len(words) - 1, 0, -1):
            for start in range(len(words) - width, -1, -1):
                part = " ".join(words[start : start + width])
                for form in (part, *_base_forms(part)):
                    if form in self._known:
                        return Label(name, self._known[form], width / len(words), "part")
        return Label(name, None, 0.0, "none")

    def labels(
        self,
        names: Sequence[str],
        *,
        embed: Callable[[Sequence[str]], Float[np.ndarray, "text d"]] | None = None,
        scale: float = 1.0,
        least: float = 0.5,
    ) -> list[Label]:
        """Return the label of each name; names that no entry matches take the nearest one where the model is sure.

        Args:
            names: names of latents.
            embed: unit-norm embeddings of texts by the model; None matches words alone.
            scale: logit scale of the model, of which the probability of the nearest entry is the softmax.
            least: least probability of the nearest entry.
        """
        found = [self.label(name) for name in names]
        open_ones = [n for n, label in enumerate(found) if label.label is None and label.name.strip()]
        if embed is None or not open_ones:
            return found
        logits = scale * embed([found[n].name for n in open_ones]) @ embed(self.entries).T
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        for row, n in zip(odds, open_ones, strict=True):
            best = int(row.argmax())
            if row[best] >= least:
                found[n] = Label(found[n].name, self.entries[best], float(row[best]), "nearest")
        return found


def _of_wordnet(folder: Path) -> list[str]:
    lemmas: dict[str, None] = {}
    files = [file for part in _INDEX if (file := folder / f"index.{part}").is_file()]
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            match = _LEMMA.match(line)  # lines of the licence begin with two spaces
            if match:
                lemmas[match[1].replace("_", " ")] = None
    if not files:
        raise InputError(
            expected=f"WordNet's index.noun in {folder}", found="no such file", fix="pass the folder `dict` of WordNet"
        )
    return list(lemmas)


def _key(text: str) -> str:
    """Return the words of a text with its letters composed; a text without words stays whole."""
    composed = unicodedata.normalize("NFC", text)
    return " ".join(words_in(composed)) or composed.strip().casefold()


def _base_forms(text: str) -> list[str]:
    """Return what the last word may be an inflection of, in English."""
    *before, last = text.split() or [""]
    forms = [last[: -len(end)] + base for end, base in _ENDINGS if last.endswith(end)]
    forms += [form[:-1] for form in forms if len(form) > _SHORTEST and form[-1] == form[-2]]  # running -> run
    return [" ".join((*before, form)) for form in forms if len(form) >= _SHORTEST]


def write_labels(path: Path, labels: Sequence[Label]) -> None:
    """Write a CSV file with the name, label, confidence and way of each latent."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["latent", "name", "label", "confidence", "how"])
        writer.writerows([k, x.name, x.label or "", f"{x.confidence:.4f}", x.how] for k, x in enumerate(labels))


@dataclass(frozen=True)
class Agreement:
    """How the labels of two runs agree."""

    both: int
    only_first: int
    only_second: int
    overlap: float
    """Labels of both over labels of either, each weighted by its smaller and larger confidence, in [0, 1]; nan without
    labels."""


def agreement(first: Sequence[Label], second: Sequence[Label]) -> Agreement:
    """Compare the labels that the latents of two runs have in one vocabulary; each label counts once per run.

    >>> one, two = (Vocabulary(["ring", "star"]).labels(names) for names in (["ring", "red"], ["rings", "star"]))
    >>> agreement(one, two)
    Agreement(both=1, only_first=0, only_second=1, overlap=0.5)
    """
    left, right = _best(first), _best(second)
    both = left.keys() & right.keys()
    either = left.keys() | right.keys()
    low = sum(min(left[k], right[k]) for k in both)
    high = sum(max(left.get(k, 0.0), right.get(k, 0.0)) for k in either)
    return Agreement(len(both), len(left) - len(both), len(right) - len(both), low / high if high else float("nan"))


def _best(labels: Sequence[Label]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for label in labels:
        if label.label is not None:
            found[label.label] = max(found.get(label.label, 0.0), label.confidence)
    return found
