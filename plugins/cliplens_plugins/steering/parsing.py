"""Edits as text, as people write them on the command line.

    red=+4          add 4 to the latents named red         red=-4        subtract 4
    red=+2x         add twice their typical level          17=3          set latent 17 to 3
    red=*0.5        halve their codes                      red=off       set their codes to 0
    red->blue=+2x   set red to 0, add blue                 3,8,12=off    several latents
    class:ImgD~1    swap all ImgD latents with the reference's (--reference), alpha 1; also class:random/20

Words resolve to all latents that are good candidates for them (`cliplens find`). The typical level of a latent given by
number is the median code of its top samples; of one given by words, its mean code where captions say the words. A
strength without x goes to the candidate of the highest level, and to the others in proportion. Between two words, the
candidates of both get the difference of their mean codes: at 1x, red pictures get the mean codes of blue ones.
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
"""Latent -> its typical code; None when that is not known."""
_FORM = re.compile(r"^(?P<who>.+?)(?:->(?P<target>.+?))?(?P<how>=|~)(?P<what>[^=~]+)$")
_NUMBER = re.compile(r"^(?P<sign>[+\-*]?)(?P<number>\d*\.?\d+)(?P<unit>x?)$")


@dataclass(frozen=True)
class Group:
    """The latents that one side of an edit means."""

    latents: tuple[int, ...]
    levels: tuple[float | None, ...]
    """The unit of each latent's strength."""
    means: Sequence[float] | None = None
    """Mean code of every latent where captions say the words; None where that is not known."""

    @property
    def shares(self) -> list[float]:
        """Return each level relative to the largest; 1 where levels are not known."""
        known = [abs(v) for v in self.levels if v]
        return [abs(v) / max(known) if v else 1.0 for v in self.levels] if known else [1.0] * len(self.latents)


Find = Callable[[str], Group]
"""Words -> the latents that stand for them, with their levels."""


def parse_edit(text: str, table: LatentTable | None = None, level: Level | None = None) -> Edit:
    """Return the single edit of a string whose latents are numbers, a class or the name of one latent.

    >>> parse_edit("17=+4").latents
    (17,)

    Args:
        text: one of the forms above.
        table: names and classes of the latents; None knows numbers only.
        level: typical codes, for strengths that end in x.

    Raises:
        InputError: it has none of the forms, or uses names or x where they are not known.
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
    """Return the edits a string means; one for latents that share a strength.

    Args:
        text: one of the forms above.
        find: words -> latents; None knows numbers and classes only.
        table: classes of the latents.
        level: typical codes of latents given by number, for strengths that end in x.

    Raises:
        InputError: it has none of the forms, or uses words or x where they are not known.
        UnknownNameError: no latent stands for the words.
    """
    found = _FORM.match(text.strip())
    if found is None:
        raise _unreadable(text)
    what = found["what"].strip()
    if found["how"] == "=" and what != "off":
        _number(text, what)  # a strength that cannot be read is refused before latents are looked for
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
    mean = sum(known) / len(known) if known else None  # several numbers are one group of one strength
    return Group(latents, (mean,) * len(latents))


def _of_class(wanted: str, table: LatentTable) -> list[int]:
    name, _, count = wanted.partition("/")
    if count and not count.isdigit():
        raise InputError(
            expected="a count after class:NAME/", found=repr(count), fix="write for example class:random/20"
        )
    return by_class(table, name, count=int(count) if count else None)


def _strengths(text: str, group: Group, number: float) -> list[float]:
    """Return the strength of each latent: `number` levels, or `number` in the dictionary's own units."""
    if not text.rstrip().endswith("x"):
        return [number * share for share in group.shares]
    if any(v is None for v in group.levels):
        raise InputError(
            expected="latents whose typical level is known, for a strength that ends in x",
            found=f"{text!r}, none known",
            fix="give the strength without x, in the dictionary's own units",
        )
    return [number * float(v) for v in group.levels if v is not None]


def _between(own: Group, target: Group, number: float, *, in_levels: bool) -> list[Edit]:
    """Return edits that add the difference of mean codes to the candidates of both sides, the largest first."""
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
    """Group latents of one strength, in order."""
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
        expected="latents by number, where there is no table of names",
        found=repr(who),
        fix="give numbers such as 17=+4, or a run folder that names its latents",
    )


def _unreadable(text: str) -> InputError:
    return InputError(
        expected="an edit such as red=+4, red=+2x, 17=3, red=*0.5, red=off, red->blue=+2x or class:ImgD~1",
        found=repr(text),
        fix="write it in one of these forms",
    )
