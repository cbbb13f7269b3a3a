"""Read a column of labels beside the pairs, for questions about them."""

from pathlib import Path

from cliplens.errors import PairsError, unknown_name
from cliplens.keys import first_id
from cliplens.pairs.dialect import Quoting
from cliplens.pairs.emoji import emoji_truth, is_emoji
from cliplens.pairs.hugging import is_hugging
from cliplens.pairs.read import read_pairs
from cliplens.sites import Modalities


def read_labels(
    path: Path | str,
    column: str,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    image_root: Path | str | None = None,
    modalities: Modalities = "both",
    delimiter: str | None = None,
    quoting: Quoting = "auto",
) -> "LabelColumn":
    """Return the values of a column of the source the pairs come from, by pair id; of emoji, those of a known factor.

    Raises:
        PairsError: the source has no columns, or none of that name.
        UnknownNameError: pairs of emoji have no such factor.
    """
    if is_emoji(path):
        return _of_emoji(str(path), column)
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
        delimiter=delimiter,
        quoting=quoting,
    )
    return LabelColumn(dict(zip(labelled.ids, labelled.captions, strict=True)))


def _of_emoji(source: str, factor: str) -> "LabelColumn":
    truth = emoji_truth(source)
    if factor not in truth.values:
        raise unknown_name("factor of the pairs", factor, truth.values)
    values = truth.values[factor]
    return LabelColumn({i: values[v] for i, v in zip(truth.ids, truth.factors[factor], strict=True)})


class LabelColumn:
    """The label of each pair. Further captions of one image (`ID#1`, ...) have the label of the first by default."""

    def __init__(self, by_id: dict[str, str | None]) -> None:
        self._by_id = by_id

    @property
    def values(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted({label.strip() for label in self._by_id.values() if label})

    def __getitem__(self, pair_id: str) -> str | None:
        label = self._by_id.get(pair_id, self._by_id.get(first_id(pair_id)))
        return None if label is None else label.strip()
