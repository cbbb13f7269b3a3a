"""Read WebDataset tar shards: files with one key are one pair. Headers are read once; images when they are used."""

import glob
import hashlib
import json
import os
import re
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64

from cliplens.errors import PairsError
from cliplens.pairs.cells import BadCaption, Caption, captions_of
from cliplens.pairs.columns import CAPTION_NAMES
from cliplens.pairs.encoding import decoded
from cliplens.pairs.folder import IMAGE_SUFFIXES, is_hidden
from cliplens.pairs.lazy import LazyImages
from cliplens.pairs.pairs import Pairs
from cliplens.pairs.strings import Growing
from cliplens.pictures import BadPicture
from cliplens.progress import Bar

_NOWHERE = (-1, -1, -1)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LISTED = 5


def is_tars(path: str) -> bool:
    """Return whether a path names tar shards: a .tar file, or a pattern that ends in .tar."""
    return path.lower().endswith(".tar")


def read_tars(pattern: str, caption_key: str | None = None, *, captions: bool = True) -> Pairs:
    """Return the pairs of tar shards, in the order of the shards' names and of the files in them.

    `notes` name shards of a range that are not there, shards that are cut short, and samples with several images, of
    which the first is taken. Hidden files (`.DS_Store`, `._0.png`) are passed over. A row of the account is a sample.

    Args:
        pattern: a path, a glob (`shards/*.tar`), or a range (`shards/{00000..00099}.tar`).
        caption_key: ending of the caption's file, or key in the .json beside the image. None takes .txt, else the
            first usual name of a caption ("caption", "text", ...) in the .json.
        captions: whether captions are needed.

    Raises:
        PairsError: there is no shard, one that is no plain tar, or captions are needed and no sample has one.
    """
    parts = list(_ranges(pattern))
    found = {part: sorted(glob.glob(part)) for part in parts}  # noqa: PTH207  patterns are strings
    shards = [Path(path) for part in parts for path in found[part]]
    if not shards:
        raise PairsError(expected=f"tar shards at {pattern}", found="none", fix="check the path")
    keys, texts = Growing(), Growing()
    bad: dict[int, str] = {}
    locations, rows = array("q"), array("q")
    count = several = said = 0
    notes = _missing(pattern, found)
    for number, shard in enumerate(Bar(shards, desc="reading headers", unit="tar")):
        for sample in _samples(number, shard, caption_key, notes):
            for caption in sample.captions or [None]:
                if isinstance(caption, BadCaption):
                    bad[len(rows)] = caption.reason
                said += caption is not None
                keys.append(sample.key)
                texts.append(caption if isinstance(caption, str) else None)
                locations.extend(sample.image or _NOWHERE)
                rows.append(count)
            count += 1
            several += sample.images > 1
    if captions and count and not said:
        named = f"with the ending or JSON key {caption_key!r}" if caption_key else "(.txt, or 'caption' of a .json)"
        raise PairsError(
            expected=f"a caption beside the images in {pattern} {named}",
            found=f"{count} samples without one",
            fix="name the captions' ending or JSON key with caption_column (--caption-column), or read images only "
            "(--tower vision, in Python modalities='image')",
        )
    if several:
        notes.append(f"{pattern}: {several} samples hold several images; the first of each was taken")
    return Pairs(
        keys.done(),
        TarImages(tuple(shards), np.frombuffer(locations, dtype=np.int64).reshape(-1, 3)),
        texts.done() if captions else None,
        name=Path(pattern).stem,
        bad_captions=bad if captions else None,
        rows=np.array(rows, dtype=np.int64),
        n_rows=count,
        unit="sample",
        notes=notes,
    )


def _missing(pattern: str, found: dict[str, list[str]]) -> list[str]:
    """Return a note on the missing shards of a range."""
    gone = [Path(part).name for part, paths in found.items() if not paths]
    if not gone:
        return []
    more = f" and {len(gone) - _LISTED} more" if len(gone) > _LISTED else ""
    return [f"{pattern}: {len(gone)} of {len(found)} shards are missing: {', '.join(gone[:_LISTED])}{more}"]


def _unread(shard: Path, offset: int) -> list[str]:
    """A note where a tar does not end as tars do, in empty blocks: cut short, damaged, or several written as one."""
    with shard.open("rb") as file:
        file.seek(offset)
        end = file.read(tarfile.RECORDSIZE * 4)
    if end and not end.strip(b"\0"):
        return []
    how = "damaged, or further archives" if end else "cut short"
    return [f"{shard.name}: {how} at byte {offset:,} of {shard.stat().st_size:,}; samples after that are not read"]


@dataclass
class _Sample:
    key: str
    image: tuple[int, int, int] | None = None
    """Shard, offset, size."""
    captions: list[Caption] = field(default_factory=list)
    images: int = 1


@dataclass
class _Member:
    """A file of a sample that is used: its name without the ending, and its content."""

    stem: str
    ending: str
    image: tuple[int, int, int] | None = None
    text: str = ""


class TarImages(LazyImages):
    """Images in tars, by shard, offset and size. Every process opens the shards itself.

    A location of -1, -1, -1 means no image.
    """

    def __init__(self, shards: tuple[Path, ...], locations: Int64[np.ndarray, "image 3"]) -> None:
        self.shards, self.locations = shards, locations
        self._open: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, index: int) -> bytes | BadPicture | None:  # type: ignore[override]
        shard, offset, size = self.locations[index].tolist()
        if shard < 0:
            return None
        here = (os.getpid(), shard)
        try:
            if here not in self._open:
                self._open[here] = os.open(self.shards[shard], os.O_RDONLY)
            return os.pread(self._open[here], size, offset)
        except OSError as error:
            return BadPicture(f"{self.shards[shard].name} cannot be read: {error.strerror}")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def __del__(self) -> None:
        for (process, _), descriptor in self._open.items():
            if process == os.getpid():
                os.close(descriptor)

    @property
    def sha256(self) -> str:
        """Hash over names and sizes of the shards and where the images lie in them."""
        sizes = [[shard.name, shard.stat().st_size] for shard in self.shards]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        digest.update(self.locations.astype("<i8").tobytes())
        return digest.hexdigest()

    def keys(self) -> Int64[np.ndarray, " image"]:
        """Return one number per image. Images stored as the same file of a tar have the same number."""
        return np.fromiter(
            (hash((n,)) if at[0] < 0 else hash(tuple(at)) for n, at in enumerate(self.locations.tolist())),
            np.int64,
            len(self),
        )


def _samples(number: int, shard: Path, caption_key: str | None, notes: list[str]) -> Iterator[_Sample]:
    """The samples of a shard: consecutive files whose names are equal up to the first dot.

    A file whose whole name was seen in the sample already begins another: of `0.png 0.txt 0.png 0.txt`, two are made.
    """
    key, members, seen = "", list[_Member](), set[str]()
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in _files(tar):
                first, member = _member(number, info)
                if first != key or info.name in seen:
                    yield from _grouped(key, members, caption_key)
                    key, members, seen = first, [], set()
                seen.add(info.name)
                if member.image is None and member.ending in {"txt", "json", (caption_key or "txt").lower()}:
                    content = tar.extractfile(info)
                    member.text = decoded(content.read()) if content else ""
                    members.append(member)
                elif member.image is not None:
                    members.append(member)
                elif not members:
                    members.append(_Member(member.stem, ""))  # a sample of other files only is a sample too
            notes += _unread(shard, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise PairsError(
            expected=f"a plain tar at {shard}",
            found=str(error),
            fix="download it again, or unpack it if it is compressed",
        ) from error
    yield from _grouped(key, members, caption_key)


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Iterate over the files of a tar. A truncated tar ends early; its last file cannot be read as an image."""
    seen = 0
    while True:
        try:
            member = tar.next()
        except tarfile.ReadError:
            if not seen:
                raise
            return
        if member is None:
            return
        seen += 1
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has read: a kilobyte per file
        if member.isfile() and not is_hidden(member.name):
            yield member


def _member(number: int, info: tarfile.TarInfo) -> tuple[str, _Member]:
    """Return WebDataset's key (the name up to the first dot) and the file."""
    path = PurePosixPath(info.name)
    first, _, rest = path.name.partition(".")
    stem, _, ending = path.name.rpartition(".") if rest else (path.name, "", "")
    is_image = f".{ending.lower()}" in IMAGE_SUFFIXES
    image = (number, info.offset_data, info.size) if is_image else None
    return (path.parent / first).as_posix(), _Member((path.parent / stem).as_posix(), ending.lower(), image)


def _grouped(key: str, members: list[_Member], caption_key: str | None) -> Iterator[_Sample]:
    """Group the files of a key into samples: one, or several if names with more dots (`img.v1.png`) form pairs."""
    if not members:
        return
    by_stem: dict[str, list[_Member]] = {}
    for member in members:
        by_stem.setdefault(member.stem, []).append(member)
    whole = [stem for stem, of in by_stem.items() if any(m.image for m in of) and any(not m.image for m in of)]
    alone = all(m.image for m in members) and len(by_stem) > 1
    if len(whole) > 1 or alone:
        for stem, of in by_stem.items():
            yield _sample(stem, of, caption_key)
    else:
        yield _sample(next(iter(by_stem)) if len(by_stem) == 1 else key, members, caption_key)


def _sample(key: str, members: list[_Member], caption_key: str | None) -> _Sample:
    images = [m.image for m in members if m.image is not None]
    image = images[0] if images else None
    texts = {m.ending: m.text for m in members if m.image is None}
    ending = (caption_key or "txt").lower()
    if ending in texts:
        return _Sample(key, image, captions_of(texts[ending]), len(images))
    if "json" not in texts:
        return _Sample(key, image)
    try:
        found = json.loads(texts["json"])
    except (ValueError, RecursionError):
        return _Sample(key, image, [BadCaption("the .json beside the image is not JSON")])
    if not isinstance(found, dict):
        return _Sample(key, image, [BadCaption(f"the .json beside the image is a {type(found).__name__}")])
    usual = [caption_key] if caption_key else CAPTION_NAMES
    value = next((found[name] for name in usual if name in found), None)
    return _Sample(key, image, captions_of(value), len(images))


def _ranges(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _ranges(pattern[: found.start()] + str(number).zfill(len(first)) + pattern[found.end() :])
