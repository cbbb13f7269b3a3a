"""Parse edits as written on the command line.

    red=+4          add 4 to the latents named red         red=-4        subtract 4
    red=+2x         add twice their typical level          17=3          set latent 17 to 3
    red=*0.5        halve their codes                      red=off       set their codes to 0
    red->blue=+2x   set red to 0, add blue                 3,8,12=off    several latents
    red->blue       the same as red->blue=+1x              red           the same as red=+1x
    class:ImgD~1    swap all ImgD latents with the reference's (--reference), alpha 1; also class:random/20

Words resolve to all latents marked good by `cliplens find`. The typical level of a latent given by number is the median
code of its top samples; that of a latent given by words is its mean code on captions that contain the words. A strength
without x applies to the candidate with the highest level; the others are edited in proportion. An edit between two
words adds the difference of mean codes to the candidates of both: at 1x, red pictures get the mean codes of blue ones.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cliplens import edits
from cliplens.edits import Edit
from cliplens.errors import InputError
from cliplens.records import LatentTable
from cliplens_plugins.steering.selection import by_class, by_name

Level = Callable[[int], float | None]
"""Function of a latent that returns its typical code, or None if unknown."""
_DEFAULT = "=+1x"
"""The strength of an edit that names none: one typical level."""
_FORM = re.compile(r"^(?P<who>.+?)(?:->(?P<target>.+?))?(?P<how>=|~)(?P<what>[^=~]+)$")
_NUMBER = re.compile(r"^(?P<sign>[+\-*]?)(?P<number>\d*\.?\d+)(?P<unit>x?)$")


@dataclass(frozen=True)
class Group:
    """The latents on one side of an edit."""

    latents: tuple[int, ...]
    levels: tuple[float | None, ...]
    """Typical code of each latent, the unit of strengths that end in x; None if unknown."""
    means: Sequence[float] | None = None
    """Mean code of every latent on captions that contain the words; None if unknown."""
    n_good: int | None = None
    """Number of latents that represent the words, of which `latents` are the strongest; None without words."""

    @property
    def shares(self) -> list[float]:
        """Return each level relative to the largest; 1 for all if levels are unknown."""
        known = [abs(v) for v in self.levels if v]
        return [abs(v) / max(known) if v else 1.0 for v in self.levels] if known else [1.0] * len(self.latents)


Find = Callable[[str], Group]
"""Function of words that returns their latents with their levels."""


def parse_edit(text: str, table: LatentTable | None = None, level: Level | None = None) -> Edit:
    """Parse a string that is a single edit of latents given by number, class or name.

    >>> parse_edit("17=+4").latents
    (17,)

    Args:
        text: one of the forms above.
        table: names and classes of the latents; without it, only numbers are accepted.
        level: typical codes, for strengths that end in x.

    Raises:
        InputError: the text has none of the forms, or uses names or x without `table` or `level`.
        UnknownNameError: no latent has the name.
    """

    def find(words: str) -> Group:
        if table is None:
            raise _no_names(words)
        latents = by_name(table, words)[:1]
        return Group(tuple(latents), (None if level is None else level(latents[0]),))

    (edit,) = parse_edits(text, find, table=table, level=level)
    return edit


def parse_edits(
    text: str, find: Find | None = None, *, table: LatentTable | None = None, level: Level | None = None
) -> list[Edit]:
    """Parse a string into edits, one for each distinct strength.

    Args:
        text: one of the forms above.
        find: finds the latents of words; without it, only numbers and classes are accepted.
        table: classes of the latents.
        level: typical codes of latents given by number, for strengths that end in x.

    Raises:
        InputError: the text has none of the forms, or uses words or x without `find` or `level`.
        UnknownNameError: no latent represents the words.
    """
    text = text.strip()
    if text and "=" not in text and "~" not in text:
        text += _DEFAULT
    found = _FORM.match(text)
    if found is None:
        raise _unreadable(text)
    what = found["what"].strip()
    if found["how"] == "=" and what != "off":
        _number(text, what)  # refuse an unreadable strength before searching for latents
    own = _group(found["who"].strip(), find, table, level)
    if found["how"] == "~":
        return [edits.swap(own.latents, _number(text, what)[1])]
    if what == "off":
        return [edits.ablate(own.latents)]
    sign, number = _number(text, what)
    if found["target"] is not None:
        target = _group(found["target"].strip(), find, table, level)
        signed = -number if sign == "-" else number
        if own.means is not None and target.means is not None:
            return _between(own, target, signed, in_levels=what.endswith("x"))
        return _replaced(own, target, _strengths(text, target, signed))
    if sign == "*":
        return [edits.scale(own.latents, number)]
    strengths = _strengths(text, own, -number if sign == "-" else number)
    make = edits.set_to if sign == "" else edits.add
    return [make(latents, strength) for latents, strength in _together(own.latents, strengths)]


def aimed_at(text: str) -> str:
    """Return the latents at which an edit ends, as they were written.

    >>> aimed_at("red->blue=+2x"), aimed_at("red"), aimed_at("17=+4")
    ('blue', 'red', '17')
    """
    return re.split("[=~]", text, maxsplit=1)[0].rpartition("->")[2].strip()


def _group(who: str, find: Find | None, table: LatentTable | None, level: Level | None) -> Group:
    if re.fullmatch(r"\d+(\s*,\s*\d+)*", who):
        latents = tuple(int(k) for k in who.split(","))
    elif who.startswith("class:") and table is not None:
        latents = tuple(_of_class(who.removeprefix("class:"), table))
    elif find is None:
        raise _no_names(who)
    else:
        return find(who)
    known = [v for v in (level(k) for k in latents) if v is not None] if level is not None else []
    mean = sum(known) / len(known) if known else None  # several numbers share one strength
    return Group(latents, (mean,) * len(latents))


def _of_class(wanted: str, table: LatentTable) -> list[int]:
    name, _, count = wanted.partition("/")
    if count and not count.isdigit():
        raise InputError(
            expected="a count after class:NAME/", found=repr(count), fix="write for example class:random/20"
        )
    return by_class(table, name, count=int(count) if count else None)


def _strengths(text: str, group: Group, number: float) -> list[float]:
    """Return the strength of each latent: `number` typical levels, or `number` in the units of the codes."""
    if not text.rstrip().endswith("x"):
        return [number * share for share in group.shares]
    if any(v is None for v in group.levels):
        raise InputError(
            expected="latents with a known typical level, since the strength ends in x",
            found=f"{text!r}, whose latents have none",
            fix="write the strength without x, in the units of the codes",
        )
    return [number * float(v) for v in group.levels if v is not None]


def _between(own: Group, target: Group, number: float, *, in_levels: bool) -> list[Edit]:
    """Return edits that add the difference of mean codes to the candidates of both sides, largest first."""
    assert own.means is not None
    assert target.means is not None
    gap = {k: float(target.means[k] - own.means[k]) for k in (*own.latents, *target.latents)}
    unit = 1.0 if in_levels else max(abs(v) for v in gap.values())
    ordered = sorted(gap, key=lambda k: -abs(gap[k]))
    return [edits.add([k], number * gap[k] / unit) for k in ordered if gap[k]]


def _replaced(own: Group, target: Group, strengths: Sequence[float]) -> list[Edit]:
    together = _together(target.latents, strengths)
    if len(together) == 1:
        return [edits.replace(own.latents, target.latents, strengths[0])]
    rest = [k for k in own.latents if k not in target.latents]
    off = [edits.ablate(rest)] if rest else []
    return off + [edits.add(latents, strength) for latents, strength in together]


def _together(latents: Sequence[int], strengths: Sequence[float]) -> list[tuple[list[int], float]]:
    """Group latents of equal strength, in order."""
    by_strength: dict[float, list[int]] = {}
    for latent, strength in zip(latents, strengths, strict=True):
        by_strength.setdefault(strength, []).append(latent)
    return [(members, strength) for strength, members in by_strength.items()]


def _number(text: str, what: str) -> tuple[str, float]:
    found = _NUMBER.match(what)
    if found is None:
        raise _unreadable(text)
    return found["sign"], float(found["number"])


def _no_names(who: str) -> InputError:
    return InputError(
        expected="latents given by number, since there is no table of names",
        found=repr(who),
        fix="pass numbers such as 17=+4, or a run folder whose latents have names",
    )


def _unreadable(text: str) -> InputError:
    return InputError(
        expected="an edit such as red=+4, red=+2x, 17=3, red=*0.5, red=off, red->blue=+2x or class:ImgD~1",
        found=repr(text),
        fix="rewrite it in one of these forms",
    )
