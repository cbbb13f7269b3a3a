"""Prepare the images and captions of pairs for the towers of a joint model."""

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from cliplens.errors import BadPairError, InputError
from cliplens.records import Pair
from cliplens.shapes import Images, Tokens


def stacked_images(pairs: Sequence[Pair], preprocess: Callable[[Image.Image], Tensor] | None) -> Images | None:
    """Return the preprocessed images of the pairs; None when no pair has an image.

    Raises:
        BadPairError: an image cannot be opened, or only some pairs have one.
        InputError: the model has no preprocess.
    """
    if not _all_have("image", [(p.id, p.source) for p in pairs]):
        return None
    prepare = required("preprocess", preprocess)
    return torch.stack([prepare(pair.image) for pair in pairs])


def token_ids(pairs: Sequence[Pair], tokenizer: Callable[[Sequence[str]], Tensor] | None) -> Tokens | None:
    """Return the token ids of the captions of the pairs; None when no pair has a caption.

    Raises:
        BadPairError: only some pairs have a caption.
        InputError: the model has no tokenizer.
    """
    if not _all_have("caption", [(p.id, p.caption) for p in pairs]):
        return None
    return required("tokenizer", tokenizer)([str(pair.caption) for pair in pairs]).long()


def required(name: str, tool: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    """Return the preprocess or the tokenizer of a model.

    Raises:
        InputError: it is None.
    """
    if tool is None:
        raise InputError(
            expected=f"a model with its {name}", found="none", fix=f"pass it: cliplens.wrap(model, {name}=...)"
        )
    return tool


def _all_have(what: str, given: Sequence[tuple[str, object]]) -> bool:
    """Return whether all pairs, rather than none, have an image or a caption."""
    without = [pair_id for pair_id, value in given if value is None]
    if without and len(without) < len(given):
        raise BadPairError(without[0], f"no {what}")
    return bool(given) and not without
