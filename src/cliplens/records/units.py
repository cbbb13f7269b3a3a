"""Which rows share a picture and which share a caption text: the independent units that statistics count."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int, UInt64

from cliplens.keys import first_id, pair_keys, text_keys


@dataclass(frozen=True)
class Units:
    """The picture and the caption text of each row, as 64-bit keys, and which rows are the first to show them.

    Rows with equal `images` show one picture; rows with equal `captions` say one text. The keys are hashed from the
    smallest id of the pairs that share the picture or the text. So where all are distinct they are the keys of the ids.
    """

    images: UInt64[np.ndarray, " row"]
    captions: UInt64[np.ndarray, " row"]
    first_image: Bool[np.ndarray, " row"]
    """Mask of the first row of each picture, so that each picture counts once."""
    first_caption: Bool[np.ndarray, " row"]
    """Mask of the first row of each caption text, so that each text counts once."""
    first_pair: Bool[np.ndarray, " row"]
    """Mask of the first row of each combination of picture and text."""

    @classmethod
    def from_ids(cls, ids: Sequence[str]) -> "Units":
        """Return the units derived from ids: `cat.jpg#1`, `cat.jpg#2` are further captions of `cat.jpg`.

        >>> units = Units.from_ids(["cat.jpg", "cat.jpg#1", "dog.jpg"])
        >>> bool(units.images[0] == units.images[1]), units.first_image.tolist()
        (True, [True, False, True])
        """
        every = np.ones(len(ids), dtype=bool)
        first = np.array([first_id(i) == i for i in ids], dtype=bool)
        return cls(pair_keys(ids), text_keys(ids), first, every, every)

    @classmethod
    def from_columns(cls, ids: Sequence[str], images: Sequence[Hashable], captions: Sequence[Hashable]) -> "Units":
        """Return the units of all pairs of a pass, from identifiers of their pictures and captions.

        Args:
            ids: the ids of the pairs, in the order in which they are counted.
            images: equal for pairs that show one picture.
            captions: equal for pairs with the same text; None for pairs without a caption.

        >>> units = Units.from_columns(["a", "b"], ["a", "b"], ["a dog", "a dog"])
        >>> bool(units.captions[0] == units.captions[1]), units.first_caption.tolist()
        (True, [True, False])
        """
        said = [i if caption is None else caption for i, caption in zip(ids, captions, strict=True)]
        return cls(
            pair_keys(_smallest(ids, images)),
            text_keys(_smallest(ids, said)),
            _first(images),
            _first(said),
            _first(list(zip(images, said, strict=True))),
        )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Int[np.ndarray, " taken"] | slice) -> "Units":
        """Return the units of some rows."""
        return Units(*(getattr(self, field.name)[rows] for field in fields(self)))


def _smallest(ids: Sequence[str], groups: Sequence[Hashable]) -> list[str]:
    """Return for each row the smallest id of its group."""
    smallest: dict[Hashable, str] = {}
    for own, group in zip(ids, groups, strict=True):
        held = smallest.setdefault(group, own)
        if own < held:
            smallest[group] = own
    return [smallest[group] for group in groups]


def _first(groups: Sequence[Hashable]) -> Bool[np.ndarray, " row"]:
    seen: set[Hashable] = set()
    first = np.zeros(len(groups), dtype=bool)
    for row, group in enumerate(groups):
        first[row] = group not in seen
        seen.add(group)
    return first
