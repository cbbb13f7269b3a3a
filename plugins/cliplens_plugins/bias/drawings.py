"""Read emoji of professions as a data set for bias: drawings by artist, gender and skin tone, in all cells."""

import numpy as np

from cliplens import keys
from cliplens.errors import InputError, unknown_name
from cliplens.pairs.emoji import ARTISTS, Drawing, EmojiSource, drawings
from cliplens_plugins.bias.pictures import LabelledPictures

ATTRIBUTES = ("gender", "skin_tone", "profession", "artist")
_TEMPLATES = ("{}", "{}: light skin tone", "{}: medium skin tone", "{}: dark skin tone")
_SHARE = 0.5
_SEED = 1702


def read_drawings(artists: str, *, group: str = "gender", target: str = "profession") -> LabelledPictures:
    """Return the drawings of the 24 professions that are drawn in every gender and skin tone.

    Neutral drawings are left out where gender is the group or the target, the default tone where the skin tone is.
    Methods are fitted on half of the cells of profession, gender and skin tone, whichever artist drew them. Prompts are
    names as emoji have them, not photographs.

    Args:
        artists: noto, twemoji, fluent, several of them, or all, below CLIPLENS_DATA.
        group: attribute that makes the groups: gender, skin_tone, profession or artist.
        target: attribute that is classified.

    Raises:
        InputError: the data are not there, or no such attribute.
    """
    for wanted in (group, target):
        if wanted not in ATTRIBUTES:
            raise unknown_name("attribute of emoji", wanted, ATTRIBUTES)
    if group == target:
        raise InputError(expected="a group and a target that differ", found=f"{group} twice", fix="name another target")
    asked = EmojiSource.parse(f"emoji:{artists}")
    found = [
        drawing
        for artist in asked.artists
        for drawing in drawings(asked.folder(artist), artist if artist in ARTISTS else asked.folder(artist).name)
        if _is_wanted(drawing, {group, target})
    ]
    values = {name: tuple(sorted({getattr(d, name) for d in found})) for name in (group, target)}
    cells = [f"{d.profession}|{d.gender}|{d.skin_tone}" for d in found]
    toned = "skin_tone" in (group, target)
    places: dict[str, np.ndarray] = {}
    words: dict[str, tuple[str, ...]] = {}
    for name in (group, target):
        places[name] = np.array([values[name].index(getattr(drawing, name)) for drawing in found])
        words[name] = tuple(_said(name, value) for value in values[name])
    return LabelledPictures(
        name="emoji",
        paths=tuple(drawing.path for drawing in found),
        group=places[group],
        target=places[target],
        group_words=words[group],
        target_words=words[target],
        train=keys.held_out(keys.pair_keys(cells), _SHARE, _SEED),
        templates=("{}",) if toned else _TEMPLATES,
    )


def _is_wanted(drawing: Drawing, asked: set[str]) -> bool:
    if drawing.profession == "none" or ("gender" in asked and drawing.gender not in ("woman", "man")):
        return False
    return "skin_tone" not in asked or drawing.skin_tone != "default"


def _said(name: str, value: str) -> str:
    return {"skin_tone": f"person: {value} skin tone", "artist": f"drawing by {value}"}.get(name, value)
