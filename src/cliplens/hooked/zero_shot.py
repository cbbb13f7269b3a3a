"""Zero-shot classification. The prototype of a class is the mean embedding of its name in several templates."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cliplens import tasks
from cliplens.arrays import check_embeddings
from cliplens.errors import InputError

TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven templates that OpenAI found best on ImageNet (SIMPLE_IMAGENET_TEMPLATES in open_clip)."""
_BATCH = 256


@torch.no_grad()
def class_prototypes(
    encode: Callable[[Sequence[str]], Float[Tensor, "text d_embed"]], classes: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "class d_embed"]:
    """Return one unit-norm prototype per class: the mean of the unit-norm embeddings of its sentences.

    Args:
        encode: function from captions to embeddings.
        classes: class names.
        templates: sentences with `{}` in place of the class name.

    Raises:
        InputError: no class or no template is given, or a template has no `{}`.
        NonFiniteError: an embedding holds nan or inf.
    """
    _check(classes, templates)
    sentences = [template.replace("{}", name) for name in classes for template in templates]
    parts = [F.normalize(encode(sentences[n : n + _BATCH]), dim=-1) for n in range(0, len(sentences), _BATCH)]
    found = torch.cat(parts)
    check_embeddings(found, "embeddings of the class names")
    return F.normalize(found.unflatten(0, (len(classes), len(templates))).mean(1), dim=-1)


def check_classes(
    tokenizer: Callable[[Sequence[str]], Tensor], classes: Sequence[str], templates: Sequence[str]
) -> None:
    """Check that a tokenizer tells the classes apart.

    Raises:
        InputError: no class or no template is given, a template has no `{}`, or the tokens of two different names are
            equal in every template.
    """
    _check(classes, templates)
    read: dict[tuple[int, ...], str] = {}
    for name in classes:
        tokens = tokenizer([template.replace("{}", name) for template in templates])
        same = read.setdefault(tuple(tokens.flatten().tolist()), name)
        if same != name:
            raise InputError(
                expected="names of classes that the tokenizer tells apart",
                found=f"{same!r} and {name!r}, whose sentences have the same tokens",
                fix=f"use other names, or shorter templates if the sentence exceeds {tokens.shape[-1]} tokens",
            )


def classify(
    image: Float[Tensor, "image d_embed"], prototypes: Float[Tensor, "class d_embed"]
) -> Int64[Tensor, " image"]:
    """Return the index of the nearest prototype of each image, by cosine.

    Raises:
        NonFiniteError: an embedding holds nan or inf.
    """
    check_embeddings(image, "embeddings of the images")
    return tasks.nearest_prototype(image, prototypes)


def _check(classes: Sequence[str], templates: Sequence[str]) -> None:
    named = not isinstance(classes, str) and all(isinstance(name, str) and name.strip() for name in classes)
    if not named or not len(classes):
        raise InputError(
            expected="a list of class names, at least one, none of them empty",
            found=repr(classes),
            fix="pass a list such as ['cat', 'dog']",
        )
    if isinstance(templates, str) or not len(templates):
        raise InputError(
            expected="a list of templates, at least one",
            found=repr(templates),
            fix="pass a list such as ['a photo of a {}.']",
        )
    without = [t for t in templates if "{}" not in t]
    if without:
        raise InputError(
            expected="templates with {} in place of the class name",
            found=repr(without[0]),
            fix="write it like 'a photo of a {}.'",
        )
