"""The pictures under attack, with their labels, their captions, and the other picture each is to be taken for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cliplens import keys
from cliplens.errors import BadPictureError, InputError
from cliplens.hooked import TEMPLATES, HookedCLIP
from cliplens.pairs import open_image, read_labels
from cliplens.pictures import open_picture
from cliplens.run import OpenedRun
from cliplens.studies import read_class_folders
from cliplens.world import FACTORS, ground_truth, value_sentences
from cliplens_plugins.robustness.eye import Eye
from cliplens_plugins.robustness.pixels import Pixels

WORLD = "world:"
WORLD_LABEL = "shape"
_SEED = 171


@dataclass(frozen=True)
class Subject:
    """Pictures with the class of each, and with captions if they have them."""

    name: str
    """The label: a factor, a column, a folder, or `caption` where each picture's own caption is its class."""
    ids: tuple[str, ...]
    pixels: Pixels
    labels: Int64[Tensor, " sample"]
    classes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    """Sentences that say each class; their mean embedding is its prototype."""
    prototypes: Float[Tensor, "class d_embed"]
    captions: tuple[str, ...] | None
    text: Float[Tensor, "sample d_embed"] | None
    """Unit-norm embeddings of the captions, float64."""
    target: Int64[Tensor, " sample"]
    """For each picture the row of another one, of another class and with another caption."""
    pictures: Sequence[Image.Image] = ()
    """The pictures before they are resized, for words drawn on them."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def goals(self) -> Float[Tensor, "sample d_embed"]:
        """The embedding each picture is moved to: of the target's caption, or of its class without captions."""
        return self.prototypes[self.labels[self.target]] if self.text is None else self.text[self.target]

    def goal_words(self, row: int) -> str:
        """Return the target's caption, or the name of its class."""
        other = int(self.target[row])
        return self.classes[int(self.labels[other])] if self.captions is None else self.captions[other]


def subject_of(run: OpenedRun, labels: str | Path | None, count: int, *, seed: int = 0) -> Subject:
    """Return pictures of a run, or of a folder, with the labels that were asked for.

    Args:
        run: the run.
        labels: a folder with one subfolder of pictures per class; a factor of the world; a column of the table of
            pairs; None takes the shape on a run of the world, and else each picture's own caption.
        count: pictures at most.
        seed: seed of the choice among the pictures of a folder.

    Raises:
        InputError: there is no such label, or fewer than two pictures or classes are left.
    """
    folder = labels is not None and Path(labels).is_dir()
    if folder:
        found = _of_folder(run.clip, Path(str(labels)), count, seed)
    elif run.asked.pairs.startswith(WORLD):
        found = _of_world(run, str(labels or WORLD_LABEL), count)
    elif labels is None:
        found = _of_captions(run, count)
    else:
        found = _of_column(run, str(labels), count)
    return found


def targets(
    ids: Sequence[str], labels: Int64[np.ndarray, " sample"], captions: Sequence[str] | None
) -> Int64[Tensor, " sample"]:
    """Return for each picture another one of another class and with another caption, drawn by id.

    Raises:
        InputError: a picture has no such other picture.
    """
    order = np.argsort(keys.hashed(keys.text_keys(ids), _SEED), kind="stable")
    place = np.argsort(order, kind="stable")
    found = np.full(len(ids), -1)
    for row in range(len(ids)):
        for n in range(1, len(ids)):
            other = int(order[(place[row] + n) % len(ids)])
            if labels[other] != labels[row] and (captions is None or captions[other] != captions[row]):
                found[row] = other
                break
    if (found < 0).any():
        raise InputError(
            expected="pictures of at least two classes",
            found=f"no other class than that of {ids[int(np.argmin(found))]} among {len(ids)} pictures",
            fix="take more pictures, or other labels",
        )
    return torch.as_tensor(found.astype(np.int64))


@torch.no_grad()
def embed_texts(clip: HookedCLIP, texts: Sequence[str], size: int = 256) -> Float[Tensor, "text d_embed"]:
    """Return unit-norm embeddings of texts, float64, on the CPU."""
    tokenizer: Any = clip.tokenizer
    parts = [tokenizer(list(texts[n : n + size])).to(clip.device) for n in range(0, len(texts), size)]
    return torch.cat([clip.encode_text(part, normalize=True).flatten(1).double().cpu() for part in parts])


def prototypes_of(clip: HookedCLIP, sentences: Sequence[Sequence[str]]) -> Float[Tensor, "class d_embed"]:
    """Return one unit-norm prototype per class, the mean of its sentences."""
    return F.normalize(torch.stack([embed_texts(clip, of).mean(0) for of in sentences]), dim=-1)


def _subject(
    clip: HookedCLIP,
    name: str,
    ids: Sequence[str],
    inputs: Tensor,
    labels: np.ndarray,
    sentences: Sequence[Sequence[str]],
    classes: Sequence[str],
    captions: Sequence[str] | None,
    pictures: Sequence[Image.Image],
) -> Subject:
    if len(ids) < 2:
        raise InputError(
            expected="at least two pictures to attack", found=str(len(ids)), fix="take more pictures, or other labels"
        )
    numbers = labels.astype(np.int64)
    return Subject(
        name, tuple(ids), Eye(clip).scale.to_pixels(inputs), torch.as_tensor(numbers), tuple(classes),
        tuple(tuple(of) for of in sentences), prototypes_of(clip, sentences),
        None if captions is None else tuple(captions),
        None if captions is None else embed_texts(clip, captions),
        targets(ids, numbers, captions), pictures,
    )  # fmt: skip


def _pairs(run: OpenedRun, count: int) -> tuple[tuple[str, ...], Tensor, list[str], list[Image.Image]]:
    sample = run.sample(count)
    assert sample.images is not None
    assert sample.captions is not None
    places = run.pairs.indices(sample.ids)
    pictures = [open_image(run.pairs[places[i]]) for i in sample.ids]
    return tuple(sample.ids), sample.images, [str(c) for c in sample.captions], pictures


def _of_world(run: OpenedRun, factor: str, count: int) -> Subject:
    sentences = value_sentences(factor)
    ids, images, captions, pictures = _pairs(run, count)
    labels = ground_truth(ids).factors[factor]
    return _subject(run.clip, factor, ids, images, labels, sentences, FACTORS[factor].values, captions, pictures)


def _of_captions(run: OpenedRun, count: int) -> Subject:
    return subject_of_captions(run.clip, *_pairs(run, count))


def subject_of_captions(
    clip: HookedCLIP,
    ids: Sequence[str],
    images: Float[Tensor, "sample channel height width"],
    captions: Sequence[str],
    pictures: Sequence[Image.Image],
) -> Subject:
    """Return pictures of which each has its own caption as its class.

    Args:
        clip: the model.
        ids: ids of the pairs.
        images: preprocessed images.
        captions: their captions.
        pictures: the pictures before they are resized; may be empty.

    Raises:
        InputError: there are fewer than two pictures or captions.
    """
    classes = list(dict.fromkeys(captions))
    labels = np.array([classes.index(c) for c in captions])
    return _subject(clip, "caption", ids, images, labels, [[c] for c in classes], classes, captions, pictures)


def _of_column(run: OpenedRun, column: str, count: int) -> Subject:
    a = run.asked
    labels = read_labels(
        a.pairs, column, image_column=a.image_column, id_column=a.id_column, image_root=a.image_root,
        delimiter=a.delimiter, quoting=a.quoting or "auto",
    )  # fmt: skip
    ids, images, captions, pictures = _pairs(run, count)
    kept = [n for n, i in enumerate(ids) if labels[i]]
    classes = [str(v) for v in labels.values]
    numbers = np.array([classes.index(str(labels[ids[n]])) for n in kept], dtype=np.int64)
    sentences = [_said(name) for name in classes]
    return _subject(
        run.clip, column, [ids[n] for n in kept], images[torch.as_tensor(kept, dtype=torch.long)], numbers, sentences,
        classes, [captions[n] for n in kept], [pictures[n] for n in kept],
    )  # fmt: skip


def _of_folder(clip: HookedCLIP, folder: Path, count: int, seed: int) -> Subject:
    labelled = read_class_folders(folder)
    names = [path.relative_to(folder).as_posix() for path in labelled.paths]
    order = np.argsort(keys.hashed(keys.text_keys(names), _SEED + seed), kind="stable")[:count]
    preprocess: Any = clip.preprocess
    kept: list[int] = []
    pictures, prepared = [], []
    for n in order:
        try:
            picture = open_picture(labelled.paths[n])
        except BadPictureError:
            continue
        kept.append(int(n))
        pictures.append(picture)
        prepared.append(preprocess(picture))
    sentences = [_said(name) for name in labelled.classes]
    inputs = torch.stack(prepared) if prepared else torch.zeros(0, 3, 1, 1)
    return _subject(
        clip, folder.name, [names[n] for n in kept], inputs, labelled.labels[kept], sentences, labelled.classes, None,
        pictures,
    )  # fmt: skip


def _said(name: str) -> list[str]:
    return [template.replace("{}", name) for template in TEMPLATES]
