"""Classify the pictures of a source by the names of classes, and compare with their folders."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.arrays import check_embeddings
from cliplens.errors import InputError
from cliplens.hooked import TEMPLATES, HookedCLIP
from cliplens.pairs import Decoder, Pairs, tokenised
from cliplens.progress import Bar
from cliplens.statistics import wilson_interval


@torch.no_grad()
def classified(
    clip: HookedCLIP,
    pairs: Pairs,
    classes: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 64,
) -> tuple[list[str], Float[np.ndarray, "picture class"], dict[str, str]]:
    """Return ids, probabilities, and the pictures that cannot be opened with the reason.

    A probability is the softmax over the classes of the model's own scale times the cosine; it says how the classes
    compare, not whether the picture shows any of them.

    Args:
        clip: the model.
        pairs: pictures; their captions are not read.
        classes: names of the classes.
        templates: sentences with `{}` in place of the name.
        batch_size: pictures per forward pass.

    Raises:
        InputError: the model lacks a tower, a preprocess or a tokenizer, or no class or template is given.
        NonFiniteError: an embedding holds nan or inf.
    """
    prototypes = clip.class_prototypes(classes, templates=templates)
    prototypes = prototypes.cpu().double()  # half precision would round logits of 100 by tenths
    scale = clip.logit_scale_and_bias()[0].detach().cpu().double()
    check_embeddings(scale, "scale of the logits")
    decoder = Decoder(pairs, required(clip.preprocess), False)
    bad: dict[str, str] = {}
    ids: list[str] = []
    rows = [torch.zeros(0, len(classes), dtype=torch.float64)]
    starts = range(0, len(pairs), batch_size)
    for start in Bar(starts, desc="classifying", unit="batch"):
        decoded = decoder[np.arange(start, min(start + batch_size, len(pairs)))]
        bad |= {pair.id: reason for pair, reason in decoded.bad}
        if decoded.ids:
            images: Any = decoded.pictures
            seen = clip.encode_image(images.on(clip.device).to(clip.dtype), normalize=True)
            check_embeddings(seen, "embeddings of the pictures")
            rows.append((scale * seen.cpu().double() @ prototypes.T).softmax(-1))
            ids += decoded.ids
    return ids, torch.cat(rows).numpy(), bad


def cut_sentences(clip: HookedCLIP, classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> int:
    """Return how many of the sentences about the classes are longer than the context, so that their end is not read."""
    sentences = [template.replace("{}", name) for name in classes for template in templates]
    return 0 if clip.tokenizer is None else tokenised(sentences, clip.tokenizer).truncated


def required(preprocess: Callable[[Image.Image], Tensor] | None) -> Callable[[Image.Image], Tensor]:
    """Return the preprocess of a model; raise InputError if it has none."""
    if preprocess is None:
        raise InputError(
            expected="a model with a preprocess", found="none", fix="pass it: cliplens.wrap(model, preprocess=...)"
        )
    return preprocess


@dataclass(frozen=True)
class Accuracy:
    """The share of pictures whose nearest class is that of their folder, and the share of the largest folder."""

    share: float
    low: float
    high: float
    """Wilson interval, 95 %."""
    largest: float
    """The accuracy of always answering the most frequent class: the control."""
    pictures: int


def accuracy(ids: Sequence[str], best: Sequence[str], classes: Sequence[str]) -> Accuracy | None:
    """Return the accuracy over pictures that lie in a folder named after a class; None where there are none.

    >>> accuracy(["cat/1.png", "dog/2.png", "3.png"], ["cat", "cat", "dog"], ["cat", "dog"]).share
    0.5
    """
    named = {_folded(name): name for name in classes}
    folders = [named.get(_folded(Path(i).parent.name)) for i in ids]
    told = [(folder, guess) for folder, guess in zip(folders, best, strict=True) if folder is not None]
    if not told:
        return None
    right = sum(folder == guess for folder, guess in told)
    low, high = map(float, wilson_interval(right / len(told), len(told)))
    largest = Counter(folder for folder, _ in told).most_common(1)[0][1]
    return Accuracy(right / len(told), low, high, largest / len(told), len(told))


def named_classes(given: str) -> list[str]:
    """Return the names of an option: separated by commas, or the lines of a text file, whose name ends in .txt.

    Raises:
        InputError: there are fewer than two names, two are equal but for case and underscores (as names of folders
            are read), or the file cannot be read.

    >>> named_classes("cat, tabby cat")
    ['cat', 'tabby cat']
    """
    parts = _lines(Path(given)) if given.lower().endswith(".txt") and "," not in given else given.split(",")
    names = [name.strip() for name in parts if name.strip()]
    count = Counter(map(_folded, names))
    twice = [name for name in names if count[_folded(name)] > 1]
    if len(names) < 2 or twice:
        raise InputError(
            expected="--classes as two or more different names, separated by commas",
            found=f"{twice[0]!r} twice" if twice else f"{len(names)} in {given!r}",
            fix="pass for example --classes cat,dog, or a text file with one name per line",
        )
    return names


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected=f"a text file of class names at {file}, in UTF-8",
            found="another encoding" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error),
            fix="pass the path of a UTF-8 file with one name per line, or the names with commas between them",
        ) from error


def _folded(name: str) -> str:
    """Return a class name as names of folders are compared."""
    return name.casefold().replace(" ", "_")
