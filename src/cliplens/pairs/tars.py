"""WebDataset tar shards: files of one stem are one pair. Headers are read once; images when they are used."""

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
from tqdm.auto import tqdm

from cliplens.errors import PairsError
from cliplens.pairs.folder import IMAGE_SUFFIXES
from cliplens.pairs.pairs import LazyImages, Pairs
from cliplens.pairs.strings import Growing

_NOWHERE = (-1, -1, -1)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_tars(path: str) -> bool:
    """Whether a path means tar shards: a .tar file, or a pattern that ends in .tar."""
    return path.endswith(".tar")


def read_tars(pattern: str, caption_key: str | None = None) -> Pairs:
    """Pairs of tar shards, in the order of the shards' names and of the files in them.

    Args:
        pattern: a path, a glob (`shards/*.tar`), or a range (`shards/{00000..00099}.tar`).
        caption_key: ending of the caption's file, or key in the .json beside the image. None takes .txt, else
            "caption" of the .json.

    Raises:
        PairsError: no shard, or one that is no plain tar.
    """
    shards = [Path(p) for part in _ranges(pattern) for p in sorted(glob.glob(part))]  # noqa: PTH207  patterns are strings
    if not shards:
        raise PairsError(expected=f"tar shards at {pattern}", found="none", fix="check the path")
    keys, captions, locations = Growing(), Growing(), array("q")
    for number, shard in enumerate(tqdm(shards, desc="reading headers", unit="tar", delay=2)):
        for sample in _samples(number, shard, caption_key):
            keys.append(sample.key)
            captions.append(sample.caption)
            locations.extend(sample.image or _NOWHERE)
    images = TarImages(tuple(shards), np.frombuffer(locations, dtype=np.int64).reshape(-1, 3))
    return Pairs(keys.done(), images, captions.done(), name=Path(pattern).stem)


@dataclass
class _Sample:
    key: str
    image: tuple[int, int, int] | None = None
    """Shard, offset, size."""
    caption: str | None = None
    said: dict[str, str] = field(default_factory=dict)


class TarImages(LazyImages):
    """Images in tars by shard, offset and size; every process opens the shards for itself.

    A location of -1, -1, -1 means no image.
    """

    def __init__(self, shards: tuple[Path, ...], locations: Int64[np.ndarray, "image 3"]) -> None:
        self.shards, self.locations = shards, locations
        self._open: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, index: int) -> bytes | None:  # type: ignore[override]
        shard, offset, size = self.locations[index].tolist()
        if shard < 0:
            return None
        here = (os.getpid(), shard)
        if here not in self._open:
            self._open[here] = os.open(self.shards[shard], os.O_RDONLY)
        return os.pread(self._open[here], size, offset)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def __del__(self) -> None:
        for (process, _), descriptor in self._open.items():
            if process == os.getpid():
                os.close(descriptor)

    @property
    def sha256(self) -> str:
        sizes = [[shard.name, shard.stat().st_size] for shard in self.shards]
        digest = hashlib.sha256(json.dumps(sizes).encode())
        digest.update(self.locations.astype("<i8").tobytes())
        return digest.hexdigest()


def _samples(number: int, shard: Path, caption_key: str | None) -> Iterator[_Sample]:
    sample = _Sample("")
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in _members(tar):
                stem, ending = _split(member.name)
                if stem != sample.key:
                    if sample.key:
                        yield _told(sample, caption_key)
                    sample = _Sample(stem)
                if f".{ending}" in IMAGE_SUFFIXES and sample.image is None:
                    sample.image = (number, member.offset_data, member.size)
                elif ending in ("txt", "json", caption_key):
                    content = tar.extractfile(member)
                    sample.said[ending] = content.read().decode("utf-8", "replace") if content else ""
    except tarfile.ReadError as error:
        raise PairsError(
            expected=f"a plain tar at {shard}",
            found=str(error),
            fix="mend it, or unpack it if it is compressed",
        ) from error
    if sample.key:
        yield _told(sample, caption_key)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a tar; one that was cut ends where it was cut, its last file too short to be read as an image."""
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
        if member.isfile():
            yield member


def _split(name: str) -> tuple[str, str]:
    """Stem and ending; WebDataset's stem ends at the first dot of the file's name."""
    path = PurePosixPath(name)
    first, _, ending = path.name.partition(".")
    return (path.parent / first).as_posix(), ending.lower()


def _told(sample: _Sample, caption_key: str | None) -> _Sample:
    if (caption_key or "txt") in sample.said:
        sample.caption = sample.said[caption_key or "txt"]
    elif "json" in sample.said:
        try:
            value = json.loads(sample.said["json"]).get(caption_key or "caption")
        except (ValueError, AttributeError):
            value = None
        sample.caption = None if value is None else str(value)
    sample.said = {}
    return sample


def _ranges(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        yield from _ranges(pattern[: found.start()] + str(number).zfill(len(first)) + pattern[found.end() :])
