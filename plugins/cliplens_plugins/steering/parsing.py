"""Edits as people write them on the command line.

    red=+4          add 4 to the latent named red          red=-4        the other way
    red=+2x         add twice its typical level            17=3          set latent 17 to 3
    red=*0.5        half of what is there                  red=off       silence it
    red->blue=+2x   silence red, add blue                  3,8,12=off    several latents
    class:ImgD~1    swap all ImgD latents with the reference's (--reference), alpha 1; also class:random

`x` counts in the latent's typical level, the median code of its top samples; it needs a run folder that has them.
"""

import re
from collections.abc import Callable

from cliplens import edits as making
from cliplens.edits import Edit
from cliplens.errors import InputError
from cliplens.records import LatentTable
from cliplens_plugins.steering.selection import by_class, by_name

Level = Callable[[int], float | None]
"""Latent -> its typical code; None when that is not known."""
_FORM = re.compile(r"^(?P<who>.+?)(?:->(?P<target>.+?))?(?P<how>=|~)(?P<what>[^=~]+)$")
_NUMBER = re.compile(r"^(?P<sign>[+\-*]?)(?P<number>\d*\.?\d+)(?P<unit>x?)$")


def parse_edit(text: str, table: LatentTable | None = None, level: Level | None = None) -> Edit:
    """The edit a string means.

    Args:
        text: one of the forms above.
        table: names and classes of the latents; None knows numbers only.
        level: typical codes, for strengths that end in x.

    Raises:
        InputError: it is none of the forms, or uses names or x where they are not known.
        UnknownNameError: no latent is called so.
    """
    found = _FORM.match(text.strip())
    if found is None:
        raise _unreadable(text)
    own, what = _latents(found["who"].strip(), table), found["what"].strip()
    if found["how"] == "~":
        return making.swap(own, _number(text, what)[1])
    if what == "off":
        return making.ablate(own)
    sign, number, in_levels = _parsed(text, what)
    if found["target"] is not None:
        targets = _latents(found["target"].strip(), table)
        strength = _in_units(text, targets, number, in_levels, level)
        return making.replace(own, targets, -strength if sign == "-" else strength)
    if sign == "*":
        return making.scale(own, number)
    strength = _in_units(text, own, number, in_levels, level)
    return making.set_to(own, strength) if sign == "" else making.add(own, -strength if sign == "-" else strength)


def _latents(who: str, table: LatentTable | None) -> list[int]:
    if re.fullmatch(r"\d+(\s*,\s*\d+)*", who):
        return [int(k) for k in who.split(",")]
    if table is None:
        raise InputError(
            expected="latents by number, where there is no table of names",
            found=repr(who),
            fix="give numbers such as 17=+4, or a run folder that names its latents",
        )
    if who.startswith("class:"):
        return _of_class(who.removeprefix("class:"), table)
    return by_name(table, who)[:1]


def _of_class(wanted: str, table: LatentTable) -> list[int]:
    name, _, count = wanted.partition("/")
    return by_class(table, name, count=int(count) if count else None)


def _parsed(text: str, what: str) -> tuple[str, float, bool]:
    sign, number, unit = _number(text, what)[0], _number(text, what)[1], what.endswith("x")
    return sign, number, unit


def _number(text: str, what: str) -> tuple[str, float]:
    found = _NUMBER.match(what)
    if found is None:
        raise _unreadable(text)
    return found["sign"], float(found["number"])


def _in_units(text: str, latents: list[int], number: float, in_levels: bool, level: Level | None) -> float:
    if not in_levels:
        return number
    known = [v for v in (level(k) for k in latents) if v is not None] if level is not None else []
    if not known:
        raise InputError(
            expected="latents whose typical level is known, for a strength that ends in x",
            found=f"{text!r}, none known",
            fix="give the strength without x, in the dictionary's own units",
        )
    return number * sum(known) / len(known)


def _unreadable(text: str) -> InputError:
    return InputError(
        expected="an edit such as red=+4, red=+2x, 17=3, red=*0.5, red=off, red->blue=+2x or class:ImgD~1",
        found=repr(text),
        fix="write it in one of these forms",
    )
