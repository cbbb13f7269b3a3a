"""Pictures and pairs made on the spot."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cliplens.pairs import ImageColumn, Pairs


class Column(ImageColumn):
    """Images that lie in memory as pixels."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.array = pixels

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]

    @property
    def sha256(self) -> str:
        return "column"


def png(size: int = 16, mode: str = "RGB", seed: int = 0) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "PNG")
    return out.getvalue()


def noise_pairs(n: int, *, size: int = 32, seed: int = 0) -> Pairs:
    """Pairs of noise and letters, ids `p0`, `p1`, ..."""
    draw = np.random.default_rng(seed)
    letters = ["".join(chr(97 + c) for c in draw.integers(0, 26, draw.integers(1, 9))) for _ in range(n)]
    images = Column(draw.integers(0, 255, (n, size, size, 3), dtype=np.uint8))
    return Pairs([f"p{i}" for i in range(n)], images, letters, name="noise")


def files_of(pairs: Pairs, folder: Path) -> Pairs:
    """The same pairs with each image in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for pair in pairs:
        path = folder / f"{pair.id}.png"
        pair.image.save(path)  # type: ignore[union-attr]
        paths.append(path)
    return Pairs(pairs.ids, paths, pairs.captions, name=pairs.name)
