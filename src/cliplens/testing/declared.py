"""Checks that a tower declares the sizes, positions and weights that its forward pass uses."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError
from cliplens.hooked import HookedAttention, HookedTower
from cliplens.shapes import TowerInputs
from cliplens.testing.comparing import TOLERANCE, check


def widths_are_declared(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check `d_model`, `n_ctx` and `d_embed` of the configuration against the stream and the output."""
    with torch.no_grad():
        stream = _entering(tower, inputs)
        output = tower(inputs)
    _declared("d_embed", tower.cfg.d_embed, output.shape[-1], "entries of the output")
    if tower.stack_name == "stages":
        return
    _declared("d_model", tower.cfg.d_model, stream.shape[-1], "entries of each position of the stream")
    positions = stream.shape[1]
    if tower.cfg.side == "text":
        positions += tower.cfg.n_ctx - inputs.shape[1]  # captions may be shorter than the context
        positions -= int(_appends_token(tower, inputs))
        _check_context(tower, inputs)
    _declared("n_ctx", tower.cfg.n_ctx, positions, "positions in the stream that enters block 0")


def _appends_token(tower: HookedTower, tokens: Tensor) -> bool:
    """Return whether a text tower appends a class token after the captions."""
    try:
        return bool((tower.special_position(tokens) == tokens.shape[1]).all())
    except InputError:  # a tower that pools all positions
        return False


def _check_context(tower: HookedTower, tokens: Tensor) -> None:
    """Check that the stock model takes no more token ids than `n_ctx`, if it has position embeddings."""
    if getattr(tower, "any_length", False) or "hook_pos_embed" not in tower.hook_dict:
        return
    n = tower.cfg.n_ctx + 1
    longer = tokens[:, :1].expand(-1, n).clone()
    try:
        with torch.no_grad(), tower.evaluating():
            tower.run_stock(longer)
    except Exception:  # any error means that the context ends
        return
    check(
        False,
        expected=f"n_ctx = {tower.cfg.n_ctx}, the largest number of token ids that the stock model takes",
        found=f"that it takes {n}",
        fix="correct n_ctx in the TowerConfig, or set any_length = True if captions may be shorter than n_ctx",
    )


def leading_positions_are_special(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that the first `n_special` positions, and no others, enter block 0 with the same values for all images."""
    if tower.cfg.side != "vision" or tower.stack_name == "stages":
        return
    generator = torch.Generator().manual_seed(4)
    other = torch.randn(inputs.shape, generator=generator).to(inputs)
    with torch.no_grad():
        same = (_entering(tower, inputs) == _entering(tower, other)).flatten(2).all(2).all(0)
    found = int(same.int().cumprod(0).sum())
    check(
        found == tower.n_special,
        expected=f"n_special = {tower.n_special} positions before the patches",
        found=f"{found} leading positions whose values do not depend on the image",
        fix="set self.n_special to the number of class tokens and registers",
    )


def projections_are_in_order(tower: HookedTower, inputs: TowerInputs) -> None:
    """Check that `qkv` of every attention gives the weights of queries, keys and values, in this order."""
    seen: dict[str, Tensor] = {}
    layers = [(name, m) for name, m in tower.named_modules() if isinstance(m, HookedAttention)]
    handles = [module.register_forward_pre_hook(_Input(seen, name)) for name, module in layers]
    try:
        with torch.no_grad():
            _, cache = tower.run_with_cache(inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name, module in layers:
        _check_order(name, module, seen, cache)


def _check_order(name: str, attention: HookedAttention, seen: Mapping[str, Tensor], cache: Any) -> None:
    made = dict(zip("qkv", attention.qkv, strict=True))
    for letter, (weight, bias) in made.items():
        found = cache[f"{name}.hook_{letter}"].flatten(2)
        with torch.no_grad():
            wanted = torch.nn.functional.linear(seen[name], weight, bias)
        tolerance = 10 * TOLERANCE.get(found.dtype, 1e-2) * max(1.0, found.abs().max().item())
        off = (wanted - found).abs().max().item() if wanted.shape == found.shape else float("inf")
        check(
            off <= tolerance,
            expected=f"weight and bias of {letter} at position {'qkv'.index(letter)} of {name}.qkv",
            found=f"others, which differ from {name}.hook_{letter} by {off:.1e}",
            fix="return (weight, bias) of queries, of keys and of values, in this order",
        )


class _Input:
    """A forward pre-hook that stores the first argument under a name."""

    def __init__(self, into: dict[str, Tensor], name: str) -> None:
        self.into, self.name = into, name

    def __call__(self, module: Any, inputs: Any) -> None:
        self.into[self.name] = inputs[0]


def _entering(tower: HookedTower, inputs: TowerInputs) -> Float[Tensor, "batch pos d"]:
    return tower(inputs, stop_at_layer=0)


def _declared(size: str, declared: int, found: int, of: str) -> None:
    check(
        declared == found,
        expected=f"{size} = {declared}, as the TowerConfig declares",
        found=f"{found} {of}",
        fix=f"correct {size} in the TowerConfig",
    )


DECLARED: tuple[Callable[[HookedTower, Tensor], None], ...] = (
    widths_are_declared,
    leading_positions_are_special,
    projections_are_in_order,
)
"""The checks of what a tower declares, in the order in which `check_tower` runs them."""
