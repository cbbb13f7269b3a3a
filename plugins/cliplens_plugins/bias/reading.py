"""Prepare the data of a study of bias: embed the pictures and prompts of a data set, and pairs of the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplens.errors import BadPictureError, CliplensError, InputError
from cliplens.hooked import TEMPLATES
from cliplens.pictures import open_picture
from cliplens.run import OpenedRun
from cliplens_plugins.bias.data import BiasData, Prompts, Utility
from cliplens_plugins.bias.options import BiasOptions
from cliplens_plugins.bias.pictures import LabelledPictures
from cliplens_plugins.bias.planted import embed_texts


def utility_of(run: OpenedRun, asked: BiasOptions) -> Utility | None:
    """Return embeddings of scored pairs of the run, to measure retrieval on; None if the run has none."""
    try:
        images, tokens = run.inputs(asked.pairs)
    except CliplensError:
        return None
    clip = run.clip
    with torch.no_grad():
        image = torch.cat([clip.encode_image(x.to(clip.device), normalize=True) for x in images.split(128)])
        text = torch.cat([clip.encode_text(x.to(clip.device), normalize=True) for x in tokens.split(256)])
    return Utility(image.flatten(1).double().cpu(), text.flatten(1).double().cpu())


def read_data(
    run: OpenedRun, pictures: LabelledPictures, utility: Utility | None, asked: BiasOptions
) -> tuple[BiasData, list[str]]:
    """Return embeddings of the pictures and prompts of a data set, and notes on pictures that were left out."""
    rng = np.random.default_rng(asked.seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(part))[: asked.images] for part in (pictures.train, ~pictures.train)]
    )
    image, good = _embedded(run, [pictures.paths[i] for i in chosen])
    kept = chosen[good]
    notes = (
        [f"{len(chosen) - len(kept)} of {len(chosen)} pictures could not be opened."] if len(kept) < len(chosen) else []
    )
    prompts = _prompts(run, pictures, asked)
    data = BiasData(
        image, pictures.group[kept], pictures.target[kept], pictures.train[kept],
        pictures.group_words, pictures.target_words, prompts, utility,
    )  # fmt: skip
    return data, notes


@torch.no_grad()
def _embedded(run: OpenedRun, paths: Sequence[Path], size: int = 64) -> tuple[Tensor, np.ndarray]:
    preprocess: Any = run.clip.preprocess
    good = np.zeros(len(paths), dtype=bool)
    rows: list[Tensor] = []
    for start in range(0, len(paths), size):
        ready = []
        for i, path in enumerate(paths[start : start + size], start):
            try:
                ready.append(preprocess(open_picture(path)))
                good[i] = True
            except BadPictureError:
                continue
        if ready:
            batch = torch.stack(ready).to(run.clip.device, run.clip.dtype)
            rows.append(run.clip.encode_image(batch, normalize=True).flatten(1).double().cpu())
    if not rows:
        raise InputError(
            expected="pictures that can be opened", found=f"none of {len(paths)}, such as {paths[0]}",
            fix="pass the folder that contains the pictures of the data set",
        )  # fmt: skip
    return torch.cat(rows), good


def _prompts(run: OpenedRun, pictures: LabelledPictures, asked: BiasOptions) -> Prompts:
    def said(words: Sequence[str]) -> Tensor:
        return torch.stack(
            [embed_texts(run.clip, [t.replace("{}", word) for t in pictures.templates]) for word in words]
        )

    named = {w for words in (*pictures.group_words, *pictures.target_words) for w in words.casefold().split()}
    lines = [str(p.caption) for p in (run.pairs[i] for i in range(min(len(run.pairs), 4 * 328))) if p.caption]
    neutral = [c for c in dict.fromkeys(lines) if not named & set(c.casefold().split())][:328]
    if len(neutral) < 2:
        neutral = [t.replace("{}", "thing") for t in TEMPLATES]
    queries = None if asked.queries is None else embed_texts(run.clip, _sentences(asked.queries))[:, None]
    return Prompts(said(pictures.target_words), said(pictures.group_words), embed_texts(run.clip, neutral), queries)


def _sentences(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected=f"a text file at {path}",
            found=str(error),
            fix="pass --queries a text file with one sentence per line",
        ) from error
    if not lines:
        raise InputError(expected=f"one sentence per line in {path}", found="none", fix="write at least one sentence")
    return lines
