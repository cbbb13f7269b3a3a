"""Draw the pictures of many scenes at once: 2 x 2 cells with a sprite each, over a background."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, UInt8

from cliplens.world.factors import FACTORS, GRAIN_FIELDS, Scenes
from cliplens.world.shapes import CELL, sprites

SIDE = 2 * CELL
"""Side of a picture in pixels."""

_CHUNK = 64
_GRAIN = 0.03
_LIGHT = 0.22
_PATTERN = 0.10
COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "orange": (1.00, 0.53, 0.05),
    "yellow": (1.00, 0.93, 0.20),
    "green": (0.10, 0.58, 0.20),
    "blue": (0.10, 0.28, 0.88),
    "purple": (0.52, 0.16, 0.70),
    "black": (0.05, 0.05, 0.05),
    "white": (1.00, 1.00, 1.00),
}
_TINTS = {
    "sand": (0.76, 0.68, 0.52),
    "sage": (0.56, 0.71, 0.57),
    "slate": (0.54, 0.65, 0.78),
    "mauve": (0.74, 0.58, 0.70),
}
_CLOCKWISE = ((0, 0), (0, 1), (1, 1), (1, 0))
_Pictures = UInt8[np.ndarray, f"scene {SIDE} {SIDE} 3"]


def render(scenes: Scenes) -> _Pictures:
    """Return the pictures of the scenes, RGB.

    >>> from cliplens.world import draw_scenes
    >>> render(draw_scenes(2)).shape
    (2, 48, 48, 3)
    """
    out = np.empty((len(scenes), SIDE, SIDE, 3), dtype=np.uint8)
    for start in range(0, len(scenes), _CHUNK):
        rows = slice(start, start + _CHUNK)
        out[rows] = _render(scenes.rows(rows))
    return out


def object_masks(scenes: Scenes) -> Float[np.ndarray, "scene y x"]:
    """Return how far each pixel is covered by an object, from 0 to 1.

    >>> from cliplens.world import draw_scenes
    >>> object_masks(draw_scenes(2)).shape
    (2, 48, 48)
    """
    masks = np.zeros((len(scenes), SIDE, SIDE), dtype=np.float32)
    sprite = _sprite_of(scenes)
    for cell in range(4):
        here = _occupied(scenes, cell)
        masks[here, *_cell(cell)] = sprite[here]
    return masks


def _render(scenes: Scenes) -> _Pictures:
    light = scenes["light"]
    picture = _backgrounds()[scenes["texture"], scenes["tint"], light]
    cover = _sprite_of(scenes)[..., None]
    for cell in range(4):
        here = _occupied(scenes, cell)
        y, x = _cell(cell)
        ground = picture[here, y, x]
        paint = _paints()[scenes["colour"][here], light[here], y, x]
        picture[here, y, x] = ground + cover[here] * (paint - ground)
    grainy = np.flatnonzero(scenes["grain"] == FACTORS["grain"].values.index("grainy"))
    rough = picture[grainy] + _grain_fields()[scenes["field"][grainy]][..., None]
    picture[grainy] = np.clip(rough, 0, 255)
    return (picture + 0.5).astype(np.uint8)


def _sprite_of(scenes: Scenes) -> Float[np.ndarray, "scene y x"]:
    return sprites()[scenes["shape"], scenes["size"], scenes["fill"], scenes["tilt"]]


def _occupied(scenes: Scenes, cell: int) -> Int[np.ndarray, " occupied"]:
    """Return the scenes with a copy in the cell: `count` + 1 copies go clockwise from the first."""
    return np.flatnonzero((cell - scenes["position"]) % 4 <= scenes["count"])


def _cell(cell: int) -> tuple[slice, slice]:
    y, x = _CLOCKWISE[cell]
    return slice(y * CELL, (y + 1) * CELL), slice(x * CELL, (x + 1) * CELL)


@lru_cache(maxsize=1)
def _paints() -> Float[np.ndarray, "colour light y x 3"]:
    colours = np.array([COLOURS[name] for name in FACTORS["colour"].values])
    return _lit(colours[:, None, None, :])


@lru_cache(maxsize=1)
def _backgrounds() -> Float[np.ndarray, "texture tint light y x 3"]:
    tints = np.array([_TINTS[name] for name in FACTORS["tint"].values])
    patterns = np.stack([_pattern(name) for name in FACTORS["texture"].values])
    return _lit(tints[None, :, None, None, :] + _PATTERN * patterns[:, None, :, :, None])


def _lit(surface: Float[np.ndarray, "*kinds #y #x 3"]) -> Float[np.ndarray, "*kinds light y x 3"]:
    """Return the surface under each light, from 0 to 255."""
    return np.clip(255 * surface[..., None, :, :, :] * _lights(), 0, 255).astype(np.float32)


def _pattern(name: str) -> Float[np.ndarray, "y x"]:
    """Return a pattern over the picture, from -1 to 1."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    wave = {
        "plain": np.zeros_like(y),
        "rows": np.sin(2 * np.pi * y / 8),
        "columns": np.sin(2 * np.pi * x / 8),
        "dots": np.where(np.hypot(y % 8 - 4, x % 8 - 4) < 2.2, 1.0, -0.25) / 0.6,
        "checks": np.sin(2 * np.pi * y / 16) * np.sin(2 * np.pi * x / 16) * 2,
        "diagonals": np.sin(2 * np.pi * (x + y) / 12),
    }[name]
    return np.clip(wave, -1, 1)


@lru_cache(maxsize=1)
def _lights() -> Float[np.ndarray, "light y x 1"]:
    ramp = np.linspace(1 + _LIGHT, 1 - _LIGHT, SIDE, dtype=np.float32)
    across = np.broadcast_to(ramp, (SIDE, SIDE))
    by_name = {"from-left": across, "from-above": across.T, "from-right": across[:, ::-1]}
    return np.stack([by_name[name] for name in FACTORS["light"].values])[..., None]


@lru_cache(maxsize=1)
def _grain_fields() -> Float[np.ndarray, "field y x"]:
    fields = np.random.default_rng(0).standard_normal((GRAIN_FIELDS, SIDE, SIDE))
    return (255 * _GRAIN * fields).astype(np.float32)
