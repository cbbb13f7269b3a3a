"""Tasks as functions of image and text embeddings that give one number per test item, more being better."""

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
"""From unit-norm embeddings [image, d] and [text, d] to one number per test item, or one number in all."""


@dataclass(frozen=True)
class Problem:
    """Inputs of both towers and the tasks over them."""

    images: Float[Tensor, "image channel height width"]
    """Preprocessed images."""
    tokens: Int[Tensor, "text context"]
    """Token ids of captions or of class sentences."""
    tasks: Mapping[str, Task]
    reference_images: Float[Tensor, "reference channel height width"] | None = None
    """Images that means are taken over; None: `images`."""
    reference_tokens: Int[Tensor, "reference_text context"] | None = None
    """Token ids that means are taken over; None: `tokens`."""


def matching_problem(
    clip: HookedCLIP, images: Images, tokens: Tokens, *, more: Mapping[str, Task] | None = None
) -> Problem:
    """Return retrieval at 1 in both directions and the contrastive loss of image-caption pairs as one problem.

    Equal images count as one picture, and equal token ids as one text.

    Args:
        clip: the model; its logit scale and bias enter the loss.
        images: preprocessed images.
        tokens: token ids of their captions, in step.
        more: further tasks over the same pairs.
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
    """Return minus the contrastive loss of each pair as a task, in nats, with the model's scale and bias."""
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
    """Return zero-shot classification as a problem: 1 where an image is nearest to the sentences of its class, else 0.

    Args:
        images: preprocessed images.
        labels: the class of each image, from 0.
        sentences: token ids of the sentences, those of class 0 first, as many for each class.
        classes: number of classes.
        name: name of the task.
        reference_tokens: captions that the text means are taken over; None: the sentences.
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
