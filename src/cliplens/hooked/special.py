"""Masks of the positions of a tower's stream that are neither patches nor words."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from cliplens.errors import InputError
from cliplens.hooked.base import AbstractTower
from cliplens.shapes import TowerInputs


def special_mask(
    tower: AbstractTower, inputs: TowerInputs, which: bool | Sequence[int] = True
) -> Bool[Tensor, "batch pos"]:
    """Return a mask that is True at the positions to exclude.

    Args:
        tower: the tower that reads the inputs.
        inputs: checked inputs: images, or token ids [batch, context].
        which: True for the class token and registers of an image, and for start, end and padding of a caption (a
            padding id before the last word is a word: CLIP pads with the id of "!"). Or the token ids to exclude; an
            image has only the id 0, of its class token.

    Raises:
        InputError: an id that images do not have, or a text tower without a tokenizer, so that special ids are unknown.
    """
    if tower.cfg.side == "vision":
        return _of_images(tower, inputs, which)
    mask = _of_ids(inputs, which) if not isinstance(which, bool) else _of_captions(tower, inputs)
    appended = bool((tower.special_position(inputs[:1]) == inputs.shape[1]).all())
    return torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1) if appended else mask


def all_but_one(tower: AbstractTower, inputs: TowerInputs) -> Bool[Tensor, "batch pos"]:
    """Return a mask that is True everywhere except at the class token or the end token [batch, pos].

    For a vision tower without a class token the mask is False everywhere.
    """
    if tower.cfg.side == "vision" and not tower.has_class_token:
        return torch.zeros(len(inputs), tower.cfg.n_ctx, dtype=torch.bool, device=inputs.device)
    place = tower.special_position(inputs)
    n = tower.cfg.n_ctx if tower.cfg.side == "vision" else max(inputs.shape[1], int(place.max()) + 1)
    return torch.arange(n, device=place.device) != place.unsqueeze(1)


def _of_images(tower: AbstractTower, inputs: Tensor, which: bool | Sequence[int]) -> Bool[Tensor, "batch pos"]:
    if not isinstance(which, bool) and set(which) - {0}:
        raise InputError(
            expected="exclude_special_tokens True, or [0], the id of the class token, for images",
            found=f"exclude_special_tokens={list(which)}",
            fix="exclude other positions with a hook of your own",
        )
    place = torch.arange(tower.cfg.n_ctx, device=inputs.device)
    return (place < tower.n_special).expand(len(inputs), -1)


def _of_ids(inputs: Tensor, ids: Sequence[int]) -> Bool[Tensor, "batch pos"]:
    return torch.isin(inputs, torch.tensor(list(ids), device=inputs.device, dtype=inputs.dtype))


def _of_captions(tower: AbstractTower, inputs: Tensor) -> Bool[Tensor, "batch pos"]:
    tokenizer = getattr(tower, "tokenizer", None)
    if tokenizer is None:
        raise InputError(
            expected="a text tower with a tokenizer, which defines the special ids",
            found="none",
            fix="pass the ids: exclude_special_tokens=[...]",
        )
    framing = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    padding = inputs == tokenizer.pad_token_id
    trailing = padding.flip(1).int().cumprod(dim=1).bool().flip(1)
    return _of_ids(inputs, framing) | trailing
