"""Compute the direct path from a hook to the similarity, which is linear with norms held fixed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError, MismatchError
from cliplens.hooked import FrozenHead, HookedTower, affine
from cliplens.shapes import TowerInputs

Towards = Float[Tensor, "batch d_embed"]
_STREAM = re.compile(r"^(hook_(pos_)?embed|blocks\.\d+\.hook_(resid_(pre|mid|post)|attn_out|mlp_out))$")
_INNER = re.compile(r"^blocks\.(\d+)\.(attn\.hook_z|mlp\.hook_post)$")
_HEAD_HOOKS = ("hook_pooled", "hook_projected", "hook_embedding")
_TINY = 1e-12
KINDS = f"{', '.join(_HEAD_HOOKS)}, a block's residual hooks, hook_attn_out, hook_mlp_out, attn.hook_z, mlp.hook_post"


@dataclass(frozen=True)
class DirectPath:
    """The similarity with `towards` as a linear function of the activation at a hook.

    similarity = sum over positions of acts * directions + offset + elsewhere
    """

    acts: Float[Tensor, "batch pos width"]
    """Activation at the hook, heads concatenated."""
    directions: Callable[[Towards], Float[Tensor, "batch pos width"]]
    """Gradient of the similarity with respect to the activation."""
    offset: Callable[[Towards], Float[Tensor, " batch"]]
    """Contribution of norm offsets and projection biases of the head."""
    elsewhere: Callable[[Towards], Float[Tensor, " batch"]]
    """Contribution of everything that does not pass through this hook: embeddings, other blocks, other heads."""
    similarity: Callable[[Towards], Float[Tensor, " batch"]]
    """Cosine similarity as computed by the model."""


def direct_path(
    tower: HookedTower, inputs: TowerInputs, hook: str, reads: str | None = None, copies: int = 1
) -> tuple[DirectPath, Tensor]:
    """Return the direct path from a hook, and the activation at `reads` (by default at the hook), for one batch.

    With `copies`, each input is repeated that many times after the forward pass, for several directions per input.

    Raises:
        UnknownNameError: the tower has no such hook.
        InputError: the path from the hook to the output is not linear, even with norms held fixed.
    """
    tower.check_names([hook, *([reads] if reads else [])])
    if not (_STREAM.match(hook) or _INNER.match(hook) or hook in _HEAD_HOOKS):
        raise InputError(expected=f"one of {KINDS}", found=repr(hook), fix="pass one of these hook names")
    last = f"blocks.{tower.cfg.n_layers - 1}.hook_resid_post"
    names = list(dict.fromkeys([hook, reads or hook, "hook_projected", *([] if hook in _HEAD_HOOKS else [last])]))
    with torch.no_grad():
        got = {name: t.repeat_interleave(copies, 0) for name, t in tower.read(inputs, names).items()}
    output = got["hook_projected"].squeeze(1)
    read = _flat(got[reads or hook])
    if hook in _HEAD_HOOKS:
        return _in_head(tower, hook, _flat(got[hook]), output), read
    head = FrozenHead(tower, got[last], tower.checked(inputs).repeat_interleave(copies, 0))
    return _in_stream(tower, hook, got[hook], head), read


def _in_head(tower: HookedTower, hook: str, acts: Tensor, output: Tensor) -> DirectPath:
    length = output.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    matrix, offset = torch.eye(output.shape[1], dtype=output.dtype, device=output.device), torch.zeros_like(output[0])
    if hook == "hook_pooled":
        matrix, offset = affine(tower.project, acts.shape[-1], acts)
    if hook == "hook_embedding":
        length = torch.ones_like(length)
    return DirectPath(
        acts,
        lambda towards: ((towards / length) @ matrix.T).unsqueeze(1),
        lambda towards: (towards / length) @ offset,
        lambda towards: torch.zeros_like(towards[:, 0]),
        lambda towards: (output / output.norm(dim=-1, keepdim=True).clamp_min(_TINY) * towards).sum(-1),
    )


def _in_stream(tower: HookedTower, hook: str, acts: Tensor, head: FrozenHead) -> DirectPath:
    length = head.output.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    back = _writes(tower, hook, acts)
    flat = _flat(acts)

    def directions(towards: Towards) -> Tensor:
        return _flat(back(head.directions(towards / length)))

    def elsewhere(towards: Towards) -> Tensor:
        whole = (head.directions(towards / length) * head.stream).sum((1, 2))
        return whole - (directions(towards) * flat).sum((1, 2))

    return DirectPath(
        flat,
        directions,
        lambda towards: (head.offset * towards / length).sum(-1),
        elsewhere,
        lambda towards: (head.output / length * towards).sum(-1),
    )


def _writes(tower: HookedTower, hook: str, acts: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function that maps a direction in the residual stream to the hook's activation space."""
    inner = _INNER.match(hook)
    if inner is None:
        if hook == "hook_pos_embed" and not tower.adds_pos_embed:
            raise _not_direct(hook, "ln_pre")
        return lambda directions: directions
    block = tower.blocks[int(inner.group(1))]
    _check_direct(block, hook, acts)
    if inner.group(2) == "mlp.hook_post":
        return lambda directions: directions @ block.mlp.W_out.detach().T
    return lambda directions: torch.einsum("bpd,hed->bphe", directions, block.attn.W_O.detach())


def _check_direct(block: Any, hook: str, acts: Tensor) -> None:
    if block.post_norm or (hook.endswith("hook_z") and block.after_attn is not None):
        raise _not_direct(hook, "a norm after the branch")
    if hook.endswith("hook_z") and not torch.equal(block.attn.pre_output(acts), acts):
        raise _not_direct(hook, "a norm or scale after the heads")


def _not_direct(hook: str, between: str) -> InputError:
    return InputError(
        expected="a hook whose activation is added to the residual stream linearly",
        found=f"{hook}, which is followed by {between}",
        fix="use hook_attn_out or hook_mlp_out of the block",
    )


def _flat(acts: Tensor) -> Tensor:
    return acts.flatten(2)


def check_towards(towards: Tensor, inputs: Tensor, tower: HookedTower) -> None:
    """Check that there is one unit-norm direction per input.

    Raises:
        MismatchError: the shape is not [input, d_embed].
        InputError: a direction does not have norm 1.
    """
    if towards.shape != (len(inputs), tower.cfg.d_embed):
        raise MismatchError(
            expected=f"one direction per input, [{len(inputs)}, {tower.cfg.d_embed}]",
            found=f"shape {list(towards.shape)}",
            fix="pass one direction for each input, in the same order",
        )
    if not torch.allclose(towards.norm(dim=-1), torch.ones_like(towards[:, 0]), atol=1e-2):
        raise InputError(
            expected="unit-norm embeddings of the other tower",
            found=f"norms from {float(towards.norm(dim=-1).min()):.3g} to {float(towards.norm(dim=-1).max()):.3g}",
            fix="compute them with encode_text or encode_image and normalize=True",
        )
