"""A column of labels beside the pairs: what a row is asked about, besides image and caption."""

import re
from pathlib import Path

from cliplens.errors import PairsError
from cliplens.pairs.hugging import is_hugging
from cliplens.pairs.read import read_pairs
from cliplens.sites import Modalities

_FURTHER = re.compile(r"#\d+$")


def read_labels(
    path: Path | str,
    column: str,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    image_root: Path | str | None = None,
    modalities: Modalities = "both",
) -> "LabelColumn":
    """The values of a column of the source the pairs come from, by pair id.

    Raises:
        PairsError: the source has no columns, or none of that name.
    """
    if Path(path).is_dir() and not is_hugging(str(path)):
        raise PairsError(
            expected="pairs in a table, for a column of labels",
            found=f"the folder {path}",
            fix="write a CSV with a column of images, of captions and of labels",
        )
    # The label takes the caption's place, so that ids are made as those of the pairs are.
    labelled = read_pairs(
        path,
        image_column=image_column,
        caption_column=column,
        id_column=id_column,
        image_root=image_root,
        modalities=modalities,
    )
    return LabelColumn(dict(zip(labelled.ids, labelled.captions, strict=True)))


class LabelColumn:
    """Label of each pair; further captions of one image (`ID#1`, ...) have that of the first unless it has its own."""

    def __init__(self, by_id: dict[str, str | None]) -> None:
        self._by_id = by_id

    @property
    def values(self) -> list[str]:
        """The labels there are."""
        return sorted({label.strip() for label in self._by_id.values() if label})

    def __getitem__(self, pair_id: str) -> str | None:
        label = self._by_id.get(pair_id, self._by_id.get(_FURTHER.sub("", pair_id)))
        return None if label is None else label.strip()
