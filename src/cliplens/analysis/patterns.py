"""What heads look at: how much of a head's attention goes where a pattern says.

TransformerLens' `detect_head` asks for a causal model and a text shorter than the context; CLIP's captions always fill
it, and images are read in all directions. The score here is its default ("mul") one, over the positions that count: a
caption from start to end token without the padding, and all of an image.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked import HookedTower, check_open, special_mask
from cliplens.sites import Side

Places = Bool[Tensor, "#batch query key"]
Pattern = Callable[[HookedTower, Tensor], Places]


def head_scores(
    tower: HookedTower,
    inputs: Tensor,
    pattern: str | Bool[Tensor, "query key"],
    *,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
) -> Float[Tensor, "layer head"]:
    """The fraction of each head's attention that goes to the places of a pattern, averaged over inputs.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        pattern: a name in `PATTERNS`, or true where a query (row) is to look at a key (column).
        exclude_bos: leave out attention to the first position (start token, class token), in both counts.
        exclude_current_token: leave out attention of a position to itself, in both counts.

    Returns:
        Scores in [0, 1]; nan where no attention counts.

    Raises:
        UnknownNameError: no pattern of that name for this tower.
        InputError: the tower's blocks are closed.
        MismatchError: a pattern of another size than the tower's attention.
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
                expected=f"a pattern {list(attention.shape[-2:])}, query by key",
                found=str(list(counts.shape[-2:])),
                fix="count class token and registers, or the whole context",
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
    more = _positions(tower, inputs) - places.shape[-1]  # an appended class token, which no pattern of words reaches
    return F.pad(places, (0, more, 0, more))


def _counted(tower: HookedTower, inputs: Tensor, n: int) -> Places:
    """True where query and key are both part of the input."""
    if tower.cfg.side == "vision":
        return torch.ones(1, n, n, dtype=torch.bool, device=inputs.device)
    end = tower.special_position(inputs).to(inputs.device)
    inside = torch.arange(n, device=inputs.device) <= end.unsqueeze(1)
    if n > inputs.shape[1]:  # read at an appended token, so that the end of the words is where padding begins
        inside[:, :-1] = inputs != getattr(getattr(tower, "tokenizer", None), "pad_token_id", 0)
    return inside.unsqueeze(1) & inside.unsqueeze(2)


def _previous(tower: HookedTower, tokens: Tensor) -> Places:
    return _offset(tokens.shape[1], -1, tokens.device)


def _next(tower: HookedTower, tokens: Tensor) -> Places:
    return _offset(tokens.shape[1], 1, tokens.device)


def _duplicate(tower: HookedTower, tokens: Tensor) -> Places:
    """The same word earlier."""
    return (tokens.unsqueeze(2) == tokens.unsqueeze(1)).tril(-1)


def _induction(tower: HookedTower, tokens: Tensor) -> Places:
    """The word after the same word earlier."""
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
    """Class token and registers; start and end token."""
    return special_mask(tower, inputs).unsqueeze(1).expand(-1, _positions(tower, inputs), -1)


def _by_patch(near: Callable[[Tensor, Tensor], Tensor]) -> Pattern:
    """A pattern among patches, from the rows and columns that lie between key and query."""

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
            expected="patches in rows and columns", found=f"{patches} of them", fix="give the pattern as a matrix"
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
"""Named patterns. The first four for text are TransformerLens' own kinds, by its names, and one more."""
