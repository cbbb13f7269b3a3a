"""Make the tasks of a study from a run: zero-shot classification of labels or folders, and functions of the user."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch

from cliplens.errors import InputError
from cliplens.hooked import TEMPLATES
from cliplens.pairs import read_labels, tokenised
from cliplens.pictures import open_picture
from cliplens.run import OpenedRun
from cliplens.shapes import Tokens
from cliplens.studies import read_class_folders
from cliplens_plugins.contribution.options import ContributionOptions
from cliplens_plugins.contribution.tasks import Problem, Task, zero_shot_problem

WORLD = "world:"
WORLD_FACTORS = ("shape", "colour")


def task_of_user(function: str | None) -> dict[str, Task]:
    """Import a function given as MODULE:NAME and return it by its name; nothing for None.

    Raises:
        InputError: Python cannot import it.
    """
    if function is None:
        return {}
    module, _, name = function.partition(":")
    try:
        task = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            expected="--function MODULE:NAME of a function of image and text embeddings",
            found=f"{function!r} ({error})",
            fix="pass a function that Python can import, such as mytasks:score in mytasks.py",
        ) from error
    return {name: task}


def zero_shot_problems(run: OpenedRun, asked: ContributionOptions, captions: Tokens) -> list[Problem]:
    """Return the zero-shot problems of a run: of a column of labels or the factors of the world, and of a folder."""
    problems = []
    world = run.asked.pairs.startswith(WORLD)
    columns = [asked.labels] if asked.labels else WORLD_FACTORS if world else ()
    for column in columns:
        problems.append(_of_world(run, asked, column, captions) if world else _of_column(run, asked, column, captions))
    if asked.labelled is not None:
        problems.append(_of_folder(run, asked, captions))
    return problems


def _of_world(run: OpenedRun, asked: ContributionOptions, factor: str, captions: Tokens) -> Problem:
    from cliplens.world import ground_truth, value_sentences

    sample = run.sample(asked.pairs)
    sentences = value_sentences(factor)
    values = torch.as_tensor(ground_truth(sample.ids).factors[factor])
    return _problem(run, sample.images, values, [s for of in sentences for s in of], len(sentences), factor, captions)


def _of_column(run: OpenedRun, asked: ContributionOptions, column: str, captions: Tokens) -> Problem:
    a = run.asked
    labels = read_labels(
        a.pairs, column, image_column=a.image_column, id_column=a.id_column, image_root=a.image_root,
        delimiter=a.delimiter, quoting=a.quoting or "auto",
    )  # fmt: skip
    sample = run.sample(asked.pairs)
    known = labels.values
    kept = [n for n, i in enumerate(sample.ids) if labels[i]]
    values = torch.tensor([known.index(str(labels[sample.ids[n]])) for n in kept])
    assert sample.images is not None
    sentences = [t.replace("{}", value) for value in known for t in TEMPLATES]
    return _problem(run, sample.images[kept], values, sentences, len(known), column, captions)


def _of_folder(run: OpenedRun, asked: ContributionOptions, captions: Tokens) -> Problem:
    assert asked.labelled is not None
    labelled = read_class_folders(asked.labelled)
    preprocess: Any = run.clip.preprocess
    images = torch.stack([preprocess(open_picture(path)) for path in labelled.paths])
    sentences = [t.replace("{}", name) for name in labelled.classes for t in TEMPLATES]
    values = torch.as_tensor(labelled.labels)
    return _problem(run, images, values, sentences, len(labelled.classes), asked.labelled.name, captions)


def _problem(
    run: OpenedRun,
    images: Any,
    values: torch.Tensor,
    sentences: Sequence[str],
    classes: int,
    name: str,
    captions: Tokens,
) -> Problem:
    tokenizer: Any = run.clip.tokenizer
    tokens = tokenised(sentences, tokenizer).tokens
    return zero_shot_problem(
        images.to(run.clip.dtype), values, tokens, classes=classes, name=f"zero-shot {name}", reference_tokens=captions
    )
