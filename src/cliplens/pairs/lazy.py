"""Columns of images that are fetched or drawn when they are used."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from cliplens.records import ImageSource


class LazyImages(Sequence[ImageSource | None]):
    """A column of images that are fetched when they are used: from a tar, from a dataset, by drawing them."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hash that identifies the images, for `Pairs.sha256`, computed without reading them all."""

    def keys(self) -> Int64[np.ndarray, " image"]:
        """Return a number per image that is equal for the same picture; by default all differ."""
        return np.arange(len(self), dtype=np.int64)


class ImageColumn(LazyImages):
    """A lazy column with a fast method for many images at once."""

    @abstractmethod
    def pixels(self, rows: Int64[np.ndarray, " image"]) -> UInt8[np.ndarray, "image height width 3"]:
        """Return the images of the rows as RGB, with the same pixels as opened one by one."""
