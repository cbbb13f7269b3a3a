"""Collect the pictures of the page: each thumbnail once, as a data URI in the file or as a file beside it."""

import base64
import shutil
from pathlib import Path

import numpy as np

from cliplens.records import Exemplars, Pair
from cliplens.sites import Modality

_KINDS = {".png": "image/png", ".webp": "image/webp"}


PER_LATENT = 8
"""Number of pictures of a latent that the page shows."""


def picture_table(exemplars: dict[Modality, Exemplars], most_bytes: int) -> tuple[list[str], dict[str, int]]:
    """Return data URIs of the `PER_LATENT` strongest samples of each latent, and pair id -> index of its URI.

    Every latent's first picture is added before any latent's second, so that a small budget is shared evenly. Pairs
    with the same picture share one entry.
    """
    images = exemplars.get("image")
    if images is None:
        return [], {}
    uris: list[str] = []
    place_of: dict[str, int] = {}
    shown: dict[str, int] = {}
    spent = 0
    for pair in _fairly(images):
        uri = picture_uri(pair)
        if pair.id in shown or uri is None:
            continue
        if uri not in place_of:
            if spent + len(uri) > most_bytes:
                break
            spent += len(uri)
            place_of[uri] = len(uris)
            uris.append(uri)
        shown[pair.id] = place_of[uri]
    return uris, shown


def picture_files(exemplars: dict[Modality, Exemplars], folder: Path) -> tuple[list[str], dict[str, int]]:
    """Copy every thumbnail into `folder`; return paths relative to its parent, and pair id -> index of its path."""
    images = exemplars.get("image")
    shown: dict[str, int] = {}
    paths: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for pair in images.pairs if images else ():
        if isinstance(pair.source, Path) and pair.source.suffix in _KINDS:
            shutil.copyfile(pair.source, folder / pair.source.name)
            shown[pair.id] = len(paths)
            paths.append(f"{folder.name}/{pair.source.name}")
    return paths, shown


def _fairly(images: Exemplars) -> list[Pair]:
    by_rank = images.at[:, :PER_LATENT].T.ravel()
    _, first = np.unique(by_rank, return_index=True)
    return [images.pairs[p] for p in by_rank[np.sort(first)] if p >= 0]


def picture_uri(pair: Pair) -> str | None:
    """Return a pair's thumbnail as a data URI; None without one."""
    if not isinstance(pair.source, Path) or pair.source.suffix not in _KINDS:
        return None
    return f"data:{_KINDS[pair.source.suffix]};base64,{base64.b64encode(pair.source.read_bytes()).decode()}"
