"""Score attention heads by how much of their attention follows a pattern.

TransformerLens' `detect_head` requires a causal model and a text shorter than the context. CLIP pads captions to the
context, and its vision tower is not causal. The score here is the default ("mul") score of `detect_head` over valid
positions: captions from start to end token without padding, and all positions of an image.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked import HookedTower, check_open, special_mask
from cliplens.shapes import TowerInputs
from cliplens.sites import Side

Places = Bool[Tensor, "#batch query key"]
Pattern = Callable[[HookedTower, Tensor], Places]


def head_scores(
    tower: HookedTower,
    inputs: TowerInputs,
    pattern: str | Bool[Tensor, "query key"],
    *,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
) -> Float[Tensor, "layer head"]:
    """Return the fraction of each head's attention that follows a pattern, averaged over inputs.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        pattern: a name in `PATTERNS`, or a mask that is true where a query (row) should attend to a key (column).
        exclude_bos: exclude attention to the first position (start token, class token) from both sums.
        exclude_current_token: exclude attention of each position to itself from both sums.

    Returns:
        Scores in [0, 1]; nan if no attention is left to count.

    Raises:
        UnknownNameError: there is no pattern of that name for this tower.
        InputError: the tower does not expose its blocks.
        MismatchError: the mask does not have the size of the tower's attention.
    """
    check_open(tower)
    checked = tower.checked(inputs)
    places = _places(tower, checked, pattern)
    counts = _counted(tower, checked, places.shape[-1])
    if exclude_bos:
        counts = counts & (torch.arange(counts.shape[-1], device=counts.device) > 0)
    if exclude_current_token:
        counts = counts & ~torch.eye(counts.shape[-1], dtype=torch.bool, device=counts.device)
    scores: dict[int, Tensor] = {}

    def score(attention: Tensor, hook: Any) -> None:
        if attention.shape[-2:] != counts.shape[-2:]:
            raise MismatchError(
                expected=f"a pattern of shape {list(attention.shape[-2:])}, query by key",
                found=f"shape {list(counts.shape[-2:])}",
                fix="include class token and registers of images, or the whole context of captions",
            )
        kept = attention * counts.unsqueeze(1)
        scores[hook.layer()] = ((kept * places.unsqueeze(1)).sum((2, 3)) / kept.sum((2, 3))).mean(0)

    layers = range(tower.cfg.n_layers)
    with torch.no_grad():
        tower.run_with_hooks(inputs, fwd_hooks=[(f"blocks.{layer}.attn.hook_pattern", score) for layer in layers])
    return torch.stack([scores[layer] for layer in layers])


def _places(tower: HookedTower, inputs: Tensor, pattern: str | Tensor) -> Places:
    if isinstance(pattern, Tensor):
        return pattern.to(inputs.device).unsqueeze(0)
    known = PATTERNS[tower.cfg.side]
    if pattern not in known:
        raise unknown_name(f"pattern for the {tower.cfg.side} tower", pattern, known)
    places = known[pattern](tower, inputs)
    more = _positions(tower, inputs) - places.shape[-1]  # an appended class token, which no text pattern includes
    return F.pad(places, (0, more, 0, more))


def _counted(tower: HookedTower, inputs: Tensor, n: int) -> Places:
    """Return a mask that is true where query and key are both valid positions of the input."""
    if tower.cfg.side == "vision":
        return torch.ones(1, n, n, dtype=torch.bool, device=inputs.device)
    end = tower.special_position(inputs).to(inputs.device)
    inside = torch.arange(n, device=inputs.device) <= end.unsqueeze(1)
    if n > inputs.shape[1]:  # the tower appends a class token, so captions end where padding begins
        inside[:, :-1] = inputs != getattr(getattr(tower, "tokenizer", None), "pad_token_id", 0)
    return inside.unsqueeze(1) & inside.unsqueeze(2)


def _previous(tower: HookedTower, tokens: Tensor) -> Places:
    return _offset(tokens.shape[1], -1, tokens.device)


def _next(tower: HookedTower, tokens: Tensor) -> Places:
    return _offset(tokens.shape[1], 1, tokens.device)


def _duplicate(tower: HookedTower, tokens: Tensor) -> Places:
    """Return a mask of earlier positions with the same token."""
    return (tokens.unsqueeze(2) == tokens.unsqueeze(1)).tril(-1)


def _induction(tower: HookedTower, tokens: Tensor) -> Places:
    """Return a mask of positions that follow an earlier occurrence of the same token."""
    after = torch.roll(_duplicate(tower, tokens), 1, dims=2)
    after[:, :, 0] = False
    return after.tril()


def _first(tower: HookedTower, inputs: Tensor) -> Places:
    n = _positions(tower, inputs)
    places = torch.zeros(1, n, n, dtype=torch.bool, device=inputs.device)
    places[:, :, 0] = True
    return places


def _self(tower: HookedTower, inputs: Tensor) -> Places:
    return _offset(_positions(tower, inputs), 0, inputs.device)


def _special(tower: HookedTower, inputs: Tensor) -> Places:
    """Return a mask of class token and registers, or of start and end token."""
    return special_mask(tower, inputs).unsqueeze(1).expand(-1, _positions(tower, inputs), -1)


def _by_patch(near: Callable[[Tensor, Tensor], Tensor]) -> Pattern:
    """Return a pattern over patches; `near` takes the row and column offsets from query to key."""

    def pattern(tower: HookedTower, images: Tensor) -> Places:
        height, width = _grid(tower)
        place = torch.arange(height * width, device=images.device)
        rows, columns = place // width, place % width
        patches = near(rows - rows.unsqueeze(1), columns - columns.unsqueeze(1))
        n = tower.n_special
        places = torch.zeros(1, n + len(place), n + len(place), dtype=torch.bool, device=images.device)
        places[0, n:, n:] = patches
        return places

    return pattern


def _grid(tower: HookedTower) -> tuple[int, int]:
    patches = tower.cfg.n_ctx - tower.n_special
    size = tower.cfg.image_size or (1, 1)
    height = round((patches * size[0] / size[1]) ** 0.5)
    if height == 0 or patches % height:
        raise InputError(
            expected="patches in rows and columns",
            found=f"{patches} patches, which form no rectangle",
            fix="pass the pattern as a mask [query, key]",
        )
    return height, patches // height


def _positions(tower: HookedTower, inputs: Tensor) -> int:
    return tower.cfg.n_ctx if tower.cfg.side == "vision" else special_mask(tower, inputs[:1], [-1]).shape[1]


def _offset(n: int, by: int, device: torch.device) -> Places:
    place = torch.arange(n, device=device)
    return (place - place.unsqueeze(1) == by).unsqueeze(0)


PATTERNS: dict[Side, dict[str, Pattern]] = {
    "text": {
        "previous_token_head": _previous,
        "next_token_head": _next,
        "duplicate_token_head": _duplicate,
        "induction_head": _induction,
        "start_token": _first,
        "self": _self,
        "special_tokens": _special,
    },
    "vision": {
        "class_token": _first,
        "self": _self,
        "special_tokens": _special,
        "left": _by_patch(lambda down, right: (down == 0) & (right == -1)),
        "right": _by_patch(lambda down, right: (down == 0) & (right == 1)),
        "above": _by_patch(lambda down, right: (down == -1) & (right == 0)),
        "below": _by_patch(lambda down, right: (down == 1) & (right == 0)),
        "neighbours": _by_patch(
            lambda down, right: (down.abs() <= 1) & (right.abs() <= 1) & ((down != 0) | (right != 0))
        ),
        "same_row": _by_patch(lambda down, right: down == 0),
        "same_column": _by_patch(lambda down, right: right == 0),
    },
}
"""Named patterns of each tower. The names that end in _head are those of TransformerLens' `detect_head`."""
