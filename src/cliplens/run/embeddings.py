"""Open a run on embeddings without a model: the arrays and their pairs."""

from pathlib import Path

from cliplens import api
from cliplens.errors import InputError, MismatchError
from cliplens.pairs import Pairs
from cliplens.pairs.folder import read_folder
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Modality
from cliplens.store.embeddings import Embeddings, read_embeddings


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
    captions = None if settings.captions is None else _captions(Path(settings.captions), len(embeddings))
    images = None if settings.images is None else _images(Path(settings.images), len(embeddings))
    ids = embeddings.ids or (None if images is None else images.ids) or [f"row-{n:06d}" for n in range(len(embeddings))]
    sources = None if images is None else [images.unidentified(n).source for n in range(len(images))]
    return Pairs(ids, sources, captions, name="embeddings")


def _captions(path: Path, count: int) -> list[str | None]:
    if path.suffix.lower() == ".txt":
        if not path.is_file():
            raise InputError(
                expected=f"captions at {path}", found="no such file", fix="correct the path given to --captions"
            )
        text = path.read_text(encoding="utf-8-sig", errors="backslashreplace")
        captions: list[str | None] = list(text.replace("\r\n", "\n").removesuffix("\n").split("\n"))
    else:
        captions = api.read_pairs(path, modalities="text").captions
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
