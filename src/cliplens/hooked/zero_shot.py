"""Zero-shot classification. The prototype of a class is the mean embedding of its name in several templates."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from cliplens import tasks
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
    """
    _check(classes, templates)
    sentences = [template.replace("{}", name) for name in classes for template in templates]
    parts = [F.normalize(encode(sentences[n : n + _BATCH]), dim=-1) for n in range(0, len(sentences), _BATCH)]
    return F.normalize(torch.cat(parts).unflatten(0, (len(classes), len(templates))).mean(1), dim=-1)


def classify(
    image: Float[Tensor, "image d_embed"], prototypes: Float[Tensor, "class d_embed"]
) -> Int64[Tensor, " image"]:
    """Return the index of the nearest prototype of each image, by cosine."""
    return tasks.nearest_prototype(image, prototypes)


def _check(classes: Sequence[str], templates: Sequence[str]) -> None:
    if isinstance(classes, str) or not len(classes):
        raise InputError(
            expected="a list of class names, at least one",
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
