"""Define tasks: functions of image and text embeddings that return one number per test item; larger is better."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.hooked import HookedCLIP
from cliplens.shapes import Images, Tokens
from cliplens.tasks import contrastive_losses, ids_of_rows, retrieval_hits, zero_shot_hits

Task = Callable[[Tensor, Tensor], "np.ndarray | Tensor | float"]
"""Function of unit-norm embeddings [image, d] and [text, d] that returns one number per test item, or only one."""


@dataclass(frozen=True)
class Problem:
    """Inputs of both towers, and the tasks on them."""

    images: Float[Tensor, "image channel height width"]
    """Preprocessed images."""
    tokens: Int[Tensor, "text context"]
    """Token ids of captions or of class sentences."""
    tasks: Mapping[str, Task]
    """The tasks by name."""
    reference_images: Float[Tensor, "reference channel height width"] | None = None
    """Images to compute means over; None takes `images`."""
    reference_tokens: Int[Tensor, "reference_text context"] | None = None
    """Token ids to compute means over; None takes `tokens`."""


def matching_problem(
    clip: HookedCLIP, images: Images, tokens: Tokens, *, more: Mapping[str, Task] | None = None
) -> Problem:
    """Return a problem with three tasks on pairs: retrieval at 1 in both directions, and the contrastive loss.

    Equal images count as one picture, and equal token ids as one text.

    Args:
        clip: the model, whose logit scale and bias are used in the loss.
        images: preprocessed images.
        tokens: token ids of their captions, in step.
        more: further tasks on the same pairs, by name.
    """
    image_ids, caption_ids = ids_of_rows(images), ids_of_rows(tokens)
    tasks: dict[str, Task] = {
        f"retrieval {name}": partial(_found, key=key, image_ids=image_ids, caption_ids=caption_ids)
        for name, key in (("image to text", "image_to_text_r1"), ("text to image", "text_to_image_r1"))
    }
    return Problem(
        images,
        tokens,
        {**tasks, "contrastive": contrastive(clip, image_ids=image_ids, caption_ids=caption_ids), **(more or {})},
    )


def contrastive(
    clip: HookedCLIP,
    *,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> Task:
    """Return a task: minus the contrastive loss of each pair, in nats, with the model's scale and bias."""
    scale, bias = clip.logit_scale_and_bias()
    return partial(
        _minus_loss,
        scale=float(scale.detach()),
        bias=None if bias is None else float(bias.detach()),
        image_ids=image_ids,
        caption_ids=caption_ids,
    )


def zero_shot_problem(
    images: Float[Tensor, "image channel height width"],
    labels: Int[Tensor, " image"],
    sentences: Int[Tensor, "sentence context"],
    *,
    classes: int,
    name: str = "zero-shot",
    reference_tokens: Int[Tensor, "caption context"] | None = None,
) -> Problem:
    """Return a problem with one task, zero-shot classification: 1 if an image is nearest to its class, else 0.

    Args:
        images: preprocessed images.
        labels: the class of each image, from 0.
        sentences: token ids of the sentences, sorted by class, with the same number for each class.
        classes: number of classes.
        name: name of the task.
        reference_tokens: captions to compute the text means over; None takes the sentences.
    """
    task = partial(_classified, labels=labels, classes=classes)
    return Problem(images, sentences, {name: task}, reference_tokens=reference_tokens)


def _found(image: Tensor, text: Tensor, *, key: str, **ids: Sequence[Hashable]) -> Tensor:
    return retrieval_hits(image, text, (1,), **ids)[key].double()


def _minus_loss(
    image: Tensor,
    text: Tensor,
    *,
    scale: float,
    bias: float | None,
    image_ids: Sequence[Hashable] | None,
    caption_ids: Sequence[Hashable] | None,
) -> Tensor:
    return -contrastive_losses(image, text, scale, bias, image_ids=image_ids, caption_ids=caption_ids)


def _classified(
    image: Float[Tensor, "image d"], text: Float[Tensor, "sentence d"], *, labels: Tensor, classes: int
) -> Tensor:
    prototypes = torch.nn.functional.normalize(text, dim=1).unflatten(0, (classes, -1)).mean(1)
    return zero_shot_hits(image, prototypes, labels.to(image.device)).double()
