"""Judge pictures with an `AttributeReader`, or by their similarity with a phrase to an independent model."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens import registry
from cliplens.contracts import AttributeReader, Judge
from cliplens.errors import InputError, unknown_name
from cliplens_plugins.steering.effects import best_within, effect
from cliplens_plugins.steering.figures import with_mean, with_share


def reader_of(reader: str, wanted: str) -> tuple[AttributeReader, str, int]:
    """Return a reader of pictures, and the attribute and value that `wanted` ("attribute=value") names.

    Raises:
        UnknownNameError: the reader has no such attribute or value.
        InputError: `wanted` does not have the form attribute=value.
    """
    judge = registry.find("readers", reader).make(AttributeReader)
    name, _, value = wanted.partition("=")
    if not value:
        raise InputError(
            expected="--measure attribute=value, or a phrase together with --judge",
            found=repr(wanted),
            fix="pass for example --measure colour=blue",
        )
    if name not in judge.values:
        raise unknown_name("attribute", name, judge.values)
    if value not in judge.values[name]:
        raise unknown_name(f"value of {name}", value, judge.values[name])
    return judge, name, judge.values[name].index(value)


def attributes(
    reader: str, wanted: str, doses: Sequence[float], columns: Sequence[Sequence[Image.Image]]
) -> tuple[list[dict[str, Any]], float | None]:
    """Return success and side effects per dose, against the pictures at dose 0, and the suggested dose.

    The suggested dose has the most success among those at which no other attribute changes in more than 10 % of the
    pictures; None without such a dose. If every sample shows the target at dose 0, there are no rows and no dose.

    Args:
        reader: name in the entry-point group `cliplens.readers`.
        wanted: "attribute=value".
        doses: dose of each column; 0 must be one of them.
        columns: pictures of the same samples, by dose.

    Raises:
        UnknownNameError: the reader has no such attribute or value.
        InputError: `wanted` does not have the form attribute=value.
    """
    judge, name, target = reader_of(reader, wanted)
    readings = [judge.read(pictures) for pictures in columns]
    before = readings[list(doses).index(0.0)]
    effects = [effect(before, after, name, target, dose=dose) for dose, after in zip(doses, readings, strict=True)]
    if effects[0].success.n == 0:
        return [], None
    rows = []
    for found in effects:
        row = with_share(wanted, found.success.share, found.success.n)
        for other, share in found.changed.items():
            row |= with_share(f"{other} changed", share.share, share.n)
        rows.append(row)
    best = best_within([e for e in effects if e.dose != 0])
    return rows, None if best is None or best.success.share == 0 else best.dose


@torch.no_grad()
def similarities(
    judge: str, phrase: str, prompts: Sequence[str], columns: Sequence[Sequence[Image.Image]]
) -> list[dict[str, Any]]:
    """Return, for each dose, the mean cosine of the pictures with a phrase (the aim) and with their own prompts.

    Args:
        judge: spec of a judge, as in `cliplens.registry.judge`; for example "open_clip:ViT-B-32|laion2b_s34b_b79k".
        phrase: description of the intended effect.
        prompts: one prompt per picture of a column, or an empty sequence.
        columns: pictures by dose.

    Raises:
        InputError: the judge does not embed both images and words in one space.
    """
    eye = judge_of_pictures(judge)
    texts = words_of(eye, [phrase, *prompts], judge)
    rows = []
    for pictures in columns:
        images = pictures_of(eye, pictures, judge)
        row = with_mean(f"cosine with {phrase!r}", (images @ texts[0]).tolist())
        if prompts:
            row |= with_mean("cosine with the prompt", (images * texts[1:]).sum(-1).tolist())
        rows.append(row)
    return rows


def words_of(eye: Judge, texts: Sequence[str], spec: str) -> Float[Tensor, "text d"]:
    """Return unit-norm embeddings of texts.

    Raises:
        InputError: the judge does not embed words.
    """
    return _found(eye.embed(None, list(texts), list(texts)).text, spec)


def pictures_of(eye: Judge, pictures: Sequence[Image.Image], spec: str) -> Float[Tensor, "picture d"]:
    """Return unit-norm embeddings of pictures.

    Raises:
        InputError: the judge does not embed pictures.
    """
    return _found(eye.embed(list(pictures), None, [str(n) for n in range(len(pictures))]).image, spec)


def _found(rows: Tensor | None, spec: str) -> Tensor:
    if rows is None:
        raise InputError(
            expected="a judge that embeds pictures and words in one space",
            found=repr(spec),
            fix="pass for example --judge 'open_clip:ViT-B-32|laion2b_s34b_b79k'",
        )
    return rows


def check_judge(spec: str) -> None:
    """Try a judge before anything is drawn for it.

    Raises:
        InputError: there is no such judge, or it does not embed pictures and words in one space.
    """
    eye = judge_of_pictures(spec)
    words_of(eye, ["a picture"], spec)
    pictures_of(eye, [Image.new("RGB", (64, 64))], spec)


def judge_of_pictures(spec: str) -> Judge:
    """Return the judge of a spec. The bare name of a model (deprecated) means a judge of kind open_clip."""
    if spec.partition(":")[0] in {plugin.name for plugin in registry.plugins("judges")}:
        return registry.judge(spec)
    warnings.warn(f"--judge {spec} is now --judge open_clip:{spec}", DeprecationWarning, stacklevel=2)
    return registry.judge(f"open_clip:{spec}")
