"""Open a run on embeddings without a model: the arrays and their pairs."""

import re
from pathlib import Path

from cliplens import api
from cliplens.errors import InputError, MismatchError
from cliplens.pairs import Pairs
from cliplens.pairs.cells import BadCaption, Caption, captions_of
from cliplens.pairs.encoding import decoded
from cliplens.pairs.folder import read_folder
from cliplens.pairs.labels import LabelColumn
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Modality
from cliplens.store.embedding_files import read_embeddings
from cliplens.store.embeddings import Embeddings

_NUMBERS = re.compile(r"(\d+)")


def embeddings_of(settings: Settings) -> Embeddings:
    """Open the embeddings that the settings name.

    Raises:
        InputError: a file cannot be read, or has no embeddings of a requested modality.
        MismatchError: the numbers of rows or the widths differ.
    """
    wanted: list[Modality] = [m for m in MODALITIES if settings.modalities in (m, "both")]
    return read_embeddings(settings.embeddings or [], wanted)


def pairs_of_embeddings(settings: Settings, embeddings: Embeddings) -> Pairs:
    """Return the pairs of the embeddings: an id per row, with captions and images if they are given.

    Raises:
        MismatchError: the number of captions, images or pairs is not the number of rows.
    """
    if settings.pairs:
        pairs = api.read_pairs(settings.pairs, **settings.reading)
        return _as_many("pairs", pairs, len(embeddings))
    captions = None if settings.captions is None else _captions(settings, len(embeddings))
    images = None if settings.images is None else _images(Path(settings.images), len(embeddings))
    ids = embeddings.ids or (None if images is None else images.ids) or [f"row-{n:06d}" for n in range(len(embeddings))]
    sources = None if images is None else [images.unidentified(n).source for n in range(len(images))]
    bad = {n: c.reason for n, c in enumerate(captions or ()) if isinstance(c, BadCaption)}
    said = None if captions is None else [c if isinstance(c, str) else None for c in captions]
    notes = [*embeddings.notes, *([] if images is None else _order(images))]
    return Pairs(ids, sources, said, name="embeddings", bad_captions=bad, notes=notes)


def labels_of_embeddings(settings: Settings, column: str) -> LabelColumn:
    """Return a column of the table of captions, by pair id.

    Raises:
        InputError: the captions are in no table.
    """
    if settings.captions is None or Path(settings.captions).suffix.lower() == ".txt":
        raise InputError(
            expected=f"a table of captions with a column {column!r}, for --target",
            found=f"--captions {settings.captions}" if settings.captions else "no captions",
            fix="pass --captions captions.csv with one row per embedding",
        )
    labels = _table(settings, column)
    pairs = pairs_of_embeddings(settings, embeddings_of(settings))
    return LabelColumn({pairs.id_at(n): labels.caption_at(n) for n in range(len(pairs))})


def _table(settings: Settings, column: str | None) -> Pairs:
    names = ("delimiter", "quoting")
    reading = {name: value for name, value in settings.reading.items() if name in names}
    return api.read_pairs(str(settings.captions), modalities="text", caption_column=column, **reading)


def _order(images: Pairs) -> list[str]:
    """A note where the order of the names is not that of the numbers in them."""
    by_number = sorted(images.ids, key=lambda name: [int(p) if p.isdecimal() else p for p in _NUMBERS.split(name)])
    if list(images.ids) == by_number:
        return []
    ours, theirs = ", ".join(images.ids[:3]), ", ".join(by_number[:3])
    return [
        f"Images were taken in the order of their names: {ours}, ... If the rows are in the order {theirs}, ..., write "
        "the numbers with leading zeros (0001.png), or name each row's image in a table with --pairs"
    ]


def _captions(settings: Settings, count: int) -> list[Caption]:
    path = Path(str(settings.captions))
    captions: list[Caption]
    if path.suffix.lower() == ".txt":
        if not path.is_file():
            raise InputError(
                expected=f"captions at {path}", found="no such file", fix="correct the path given to --captions"
            )
        text = decoded(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
        captions = [captions_of(line)[0] for line in text.removesuffix("\n").split("\n")]
    else:
        table = _table(settings, settings.caption_column)
        captions = [
            pair.caption if pair.caption_problem is None else BadCaption(pair.caption_problem)
            for pair in map(table.unidentified, range(len(table)))
        ]
    if len(captions) != count:
        raise MismatchError(
            expected=f"one caption per row of the embeddings ({count})",
            found=f"{len(captions)} captions in {path}",
            fix="write one caption per line, in the order of the rows",
        )
    return captions


def _images(folder: Path, count: int) -> Pairs:
    if not folder.is_dir():
        raise InputError(
            expected=f"a folder of images at {folder}", found="no folder", fix="correct the path given to --images"
        )
    return _as_many("images in the folder, in the order of their names", read_folder(folder, "image"), count)


def _as_many(what: str, pairs: Pairs, count: int) -> Pairs:
    if len(pairs) != count:
        raise MismatchError(
            expected=f"{count} {what}, one per row of the embeddings",
            found=f"{len(pairs)} of them",
            fix="provide one per row, in the order of the rows",
        )
    return pairs
