"""Draw the sprites: an anti-aliased mask of each shape in each size, fill and tilt."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from cliplens.world.factors import FACTORS, TILTS

CELL = 24
"""Side of a cell in pixels; a picture has 2 x 2 cells."""
RADII = (6.0, 8.5, 11.5)
"""Radius in pixels of small, medium and large shapes."""
TILT_DEGREES = (0.0, -12.0, 12.0)

_OVERSAMPLING = 8
_Points = Float[np.ndarray, "point 2"]


@lru_cache(maxsize=1)
def sprites() -> Float[np.ndarray, "shape size fill tilt y x"]:
    """Return the coverage of each pixel of a cell, from 0 to 1, float32, read-only."""
    n_fills = len(FACTORS["fill"].values)
    bank = np.zeros((len(_OUTLINES), len(RADII), n_fills, TILTS, CELL, CELL), dtype=np.float32)
    for s, outline in enumerate(_OUTLINES.values()):
        for r, radius in enumerate(RADII):
            for t, degrees in enumerate(TILT_DEGREES):
                points = CELL / 2 + radius * _turned(outline(), degrees)
                for hollow in range(n_fills):
                    bank[s, r, hollow, t] = _mask(points, rim=0.7 + 0.14 * radius if hollow else None)
    bank.setflags(write=False)
    return bank


def _mask(points: _Points, rim: float | None) -> Float[np.ndarray, "y x"]:
    side = CELL * _OVERSAMPLING
    corners = [(float(x), float(y)) for x, y in points * _OVERSAMPLING]
    inside = Image.new("L", (side, side))
    ImageDraw.Draw(inside).polygon(corners, fill=255)
    mask = np.asarray(inside)
    if rim is not None:
        line = Image.new("L", (side, side))
        closed = [*corners, corners[0], corners[1]]
        ImageDraw.Draw(line).line(closed, fill=255, width=round(2 * rim * _OVERSAMPLING), joint="curve")
        mask = np.minimum(mask, np.asarray(line))
    blocks = mask.reshape(CELL, _OVERSAMPLING, CELL, _OVERSAMPLING)
    return blocks.mean(axis=(1, 3), dtype=np.float32) / 255


def _turned(points: _Points, degrees: float) -> _Points:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn


def _arc(start: float, end: float, radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)) -> _Points:
    angle = np.deg2rad(np.linspace(start, end, 49))
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1)


def _circle() -> _Points:
    return 0.92 * _arc(0.0, 360.0)[:-1]


def _square() -> _Points:
    return 0.82 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)


def _triangle() -> _Points:
    return np.array([[0, -1], [1, 0.85], [-1, 0.85]])


def _star() -> _Points:
    angle = np.deg2rad(-90 + 36 * np.arange(10))
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.5)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.05], axis=1)


def _heart() -> _Points:
    t = np.linspace(0, 2 * np.pi, 65)[:-1]
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return np.stack([x, y - 0.08], axis=1)


def _cross() -> _Points:
    arm = 0.38
    quarter = np.array([[-arm, -1.0], [arm, -1.0], [arm, -arm]])
    return np.concatenate([_turned(quarter, -90.0 * k) for k in range(4)])


def _moon() -> _Points:
    outer = _arc(50.0, 310.0)
    bite = 0.8
    x, y = outer[0]
    half = np.arcsin(y / bite)
    centre = (float(x + bite * np.cos(half)), 0.0)
    inner = _arc(180 + float(np.rad2deg(half)), 180 - float(np.rad2deg(half)), bite, centre)
    return np.concatenate([outer, inner]) + np.array([0.15, 0.0])


def _arrow() -> _Points:
    half = [[1.0, 0.0], [0.05, -0.9], [0.05, -0.36], [-1.0, -0.36]]
    return np.array(half + [[x, -y] for x, y in reversed(half[1:])])


_OUTLINES: dict[str, Callable[[], _Points]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "moon": _moon,
    "arrow": _arrow,
}
