"""Pairs of drawings and names, and their ground truth."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliplens.errors import PairsError
from cliplens.keys import hashed, pair_keys
from cliplens.pairs.columns import PairsBuilder
from cliplens.pairs.emoji.asked import EmojiSource, Naming
from cliplens.pairs.emoji.catalogue import Drawing, drawings, named
from cliplens.pairs.emoji.held_out import is_unseen
from cliplens.pairs.pairs import Pairs
from cliplens.records import GroundTruth
from cliplens.records.identity import Sharing
from cliplens.sites import Modalities

ATTRIBUTION = {
    "noto": "Noto Emoji, copyright Google LLC (SIL OFL 1.1 and Apache 2.0)",
    "twemoji": "Twemoji, copyright Twitter, Jason Sofonia and Justine De Caires (CC BY 4.0), rasterised on white",
    "fluent": "Fluent Emoji, copyright Microsoft (MIT), rasterised on white",
}
NAMES_BY = "Names: Unicode CLDR (Unicode licence 3.0) and gemoji (MIT)"
SHARING: dict[str, Sharing] = {
    "artist": "image",
    "language": "text",
    "naming": "text",
    "group": "shared",
    "subgroup": "shared",
    "gender": "shared",
    "skin_tone": "shared",
    "profession": "shared",
}
"""The modality that carries each factor: the drawing shows its artist, the caption its language."""
_LIMIT_SEED = 1603


@dataclass(frozen=True)
class Entry:
    """One pair: a drawing, and its caption of one kind in one language."""

    row: int
    drawing: Drawing
    language: str
    naming: Naming
    caption: str


def read_emoji(source: str, modalities: Modalities = "both") -> Pairs:
    """Return the pairs of `emoji:ARTISTS?language=...&names=...&part=...&limit=...`.

    Each drawing has one pair per language and kind of name; they share the picture. Transparent drawings are shown on
    white. The notes give the attribution that the licences ask for.

    Raises:
        PairsError: the name is wrong, the data are not there, or a table is damaged.
    """
    asked = EmojiSource.parse(source)
    entries, notes = _entries(asked)
    made = PairsBuilder(source, Path(), captions=modalities != "image")
    before = ""
    for entry in entries:
        if modalities == "image" and entry.drawing.id == before:
            continue
        before = entry.drawing.id
        made.add(entry.row, before, str(entry.drawing.path), entry.caption, before)
    credit = [ATTRIBUTION[a] for a in asked.artists if a in ATTRIBUTION]
    return made.done(n_rows=entries[-1].row + 1 if entries else 0, unit="drawing", notes=(*credit, NAMES_BY, *notes))


def emoji_truth(source: str) -> GroundTruth:
    """Return the known factors of the pairs of `emoji:...`: what drawing and name share, and what only one shows.

    A factor with one value (one artist, one language) is left out.

    Raises:
        PairsError: as `read_emoji`.
    """
    entries, _ = _entries(EmojiSource.parse(source))
    told = [_told(entry) for entry in entries]
    factors, values = {}, {}
    for name in SHARING:
        column = [one[name] for one in told]
        counts = Counter(column)
        if len(counts) < 2:
            continue
        values[name] = tuple(sorted(counts))
        place = {value: n for n, value in enumerate(values[name])}
        factors[name] = np.array([place[value] for value in column], dtype=np.int64)
    return GroundTruth(tuple(_ids(entries)), factors, values, {name: SHARING[name] for name in factors})


def _told(entry: Entry) -> dict[str, str]:
    drawing = entry.drawing
    of_drawing = {name: str(getattr(drawing, name)) for name in SHARING if hasattr(drawing, name)}
    return {**of_drawing, "language": entry.language, "naming": entry.naming}


def _ids(entries: list[Entry]) -> Iterator[str]:
    """Ids as `Pairs` gives them: further captions of a drawing are numbered."""
    seen: Counter[str] = Counter()
    for entry in entries:
        name = entry.drawing.id
        yield f"{name}#{seen[name]}" if seen[name] else name
        seen[name] += 1


def _entries(asked: EmojiSource) -> tuple[list[Entry], list[str]]:
    entries: list[Entry] = []
    missing: Counter[str] = Counter()
    for artist in asked.artists:
        folder = asked.folder(artist)
        captions = _Captions(asked, folder)
        for drawing in _chosen(asked, drawings(folder, artist if artist in ATTRIBUTION else folder.name)):
            row = entries[-1].row + 1 if entries else 0
            for naming in asked.namings:
                for language in asked.languages:
                    caption = captions.of(drawing, language, naming)
                    if caption is None:
                        missing[language] += 1
                        continue
                    entries.append(Entry(row, drawing, language, naming, caption))
    if not entries:
        raise PairsError(expected="at least one drawing", found=f"none for {asked}", fix="ask for more of them")
    return entries, [f"{count} drawings have no caption in the language {name}" for name, count in missing.items()]


def _chosen(asked: EmojiSource, found: list[Drawing]) -> list[Drawing]:
    if asked.part != "all":
        found = [drawing for drawing in found if is_unseen(drawing) == (asked.part == "unseen")]
    if asked.limit is None or asked.limit >= len(found):
        return found
    ranks = hashed(pair_keys(drawing.path.name for drawing in found), _LIMIT_SEED)
    return [found[n] for n in np.sort(np.argsort(ranks)[: asked.limit])]


class _Captions:
    """Captions of drawings. English names stand in the drawings' own table, the others in the table of languages."""

    def __init__(self, asked: EmojiSource, folder: Path) -> None:
        own = asked.languages == ("en",) and asked.namings == ("name",)
        beside = folder if "/" in asked.artists[0] else None
        self._names = {} if own else {language: named(language, beside=beside) for language in asked.languages}

    def of(self, drawing: Drawing, language: str, naming: Naming) -> str | None:
        """Return a caption, None where the language has none."""
        if language == "en" and naming == "name":
            return drawing.name
        name, tags = self._names[language].get(drawing.codepoints, ("", ()))
        return (name if naming == "name" else ", ".join(tags)) or None
