"""Pairs of the embedded world. Pictures are drawn when they are used, many at a time."""

import hashlib
import json
import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from cliplens.errors import InputError
from cliplens.pairs import ImageColumn, Pairs
from cliplens.records import GroundTruth
from cliplens.world.captions import captions
from cliplens.world.factors import FACTORS, Scenes, draw_scenes
from cliplens.world.render import render

RENDERING = 1
"""Version of the renderer. It is part of the hash of the pairs, so that caches of an older version are not reused."""

_AHEAD = 64
_ID = re.compile(r"world-(\d+)-(\d+)")


class WorldImages(ImageColumn):
    """Pictures of scenes, drawn when they are used, 64 neighbours at a time."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self._drawn: tuple[int, UInt8[np.ndarray, "picture y x 3"]] | None = None

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Image.Image:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        run, place = divmod(index % len(self), _AHEAD)
        if self._drawn is None or self._drawn[0] != run:
            self._drawn = run, render(self._scenes.rows(slice(run * _AHEAD, (run + 1) * _AHEAD)))
        return Image.fromarray(self._drawn[1][place])

    def pixels(self, rows: Int64[np.ndarray, " image"]) -> UInt8[np.ndarray, "image height width 3"]:
        """Return the pictures of the rows."""
        return render(self._scenes.rows(rows))

    @property
    def sha256(self) -> str:
        """Hash over the scenes and the version of the renderer, which determine the pictures."""
        digest = hashlib.sha256(json.dumps([RENDERING, sorted(self._scenes.values)]).encode())
        for name in sorted(self._scenes.values):
            digest.update(self._scenes[name].astype("<i8").tobytes())
        return digest.hexdigest()


def world_pairs(n: int, *, seed: int = 0) -> Pairs:
    """Return the first `n` pairs of the sequence that belongs to `seed`, with ids such as `world-0-000123`.

    >>> world_pairs(3, seed=1).ids
    ('world-1-000000', 'world-1-000001', 'world-1-000002')
    """
    return scene_pairs(draw_scenes(n, seed=seed), ids=_ids(n, seed), name=f"world:{n}" + (f":{seed}" if seed else ""))


def scene_pairs(scenes: Scenes, *, ids: Iterable[str], name: str = "scenes") -> Pairs:
    """Return pairs of any scenes, with one id per scene."""
    return Pairs(ids, WorldImages(scenes), captions(scenes), name=name)


def ground_truth(pairs: int | Iterable[str], *, seed: int = 0) -> GroundTruth:
    """Return the values of the factors of pairs of the world.

    Args:
        pairs: the number of pairs, which are then the first ones of `seed`; or ids of pairs of any seed.
        seed: seed of the pairs, if their number is given.

    Raises:
        InputError: an id is not one of `world_pairs`.
    """
    ids = _ids(pairs, seed) if isinstance(pairs, int) else list(pairs)
    factors = {name: np.empty(len(ids), dtype=np.int64) for name in FACTORS}
    for own_seed, (rows, places) in _by_seed(ids).items():
        scenes = draw_scenes(int(places.max()) + 1, seed=own_seed)
        for name in FACTORS:
            factors[name][rows] = scenes[name][places]
    return GroundTruth(
        tuple(ids),
        factors,
        values={f.name: f.values for f in FACTORS.values()},
        sharing={f.name: f.sharing for f in FACTORS.values()},
    )


def _ids(n: int, seed: int) -> list[str]:
    return [f"world-{seed}-{i:06d}" for i in range(n)]


def _by_seed(ids: list[str]) -> dict[int, tuple[Int64[np.ndarray, " row"], Int64[np.ndarray, " row"]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for row, name in enumerate(ids):
        match = _ID.fullmatch(name)
        if match is None:
            raise InputError(
                expected="ids of the embedded world, such as 'world-0-000123'",
                found=repr(name),
                fix="take the pairs from world_pairs, or leave the ground truth out",
            )
        found.setdefault(int(match[1]), []).append((row, int(match[2])))
    return {seed: tuple(np.array(places).T) for seed, places in found.items()}
