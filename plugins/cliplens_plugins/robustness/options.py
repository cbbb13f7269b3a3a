"""Read the lists among the options of the command."""

from cliplens.errors import InputError, unknown_name

ATTACKS = ("margin", "ce", "feature", "caption", "class", "goal")
CONTROLS = 199
"""Random sets of latents that the share of each class is compared with."""
FEWEST_CONTROLS = 39
"""Fewest random sets: a class that is one more of them lies outside all 39 in 2 of 40 cases, which is 5 %."""


def levels_in(text: str | None) -> tuple[float, ...] | None:
    """Return the levels of a list such as `1,2,4,8`, smallest first.

    Raises:
        InputError: an entry is no number above 0 and up to 255.

    >>> levels_in("4, 1,0.5,4")
    (0.5, 1.0, 4.0)
    """
    if text is None:
        return None
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 < level <= 255 for level in found):
        raise InputError(
            expected="levels of 255 with commas between them, such as 1,2,4,8",
            found=repr(text),
            fix="pass --eps 1,2,4,8, numbers above 0 and up to 255",
        )
    return tuple(found)


def attacks_in(text: str | None) -> tuple[str, ...] | None:
    """Return the attacks of a list such as `margin,class`, in the order of `ATTACKS`.

    Raises:
        UnknownNameError: an entry is no attack.

    >>> attacks_in("class,margin")
    ('margin', 'class')
    """
    if text is None:
        return None
    asked = {part.strip() for part in text.split(",")}
    for name in sorted(asked - set(ATTACKS)):
        raise unknown_name("attack", name, ATTACKS)
    return tuple(name for name in ATTACKS if name in asked)
