"""The direct path from a hook to the similarity: what is there, and in which direction it counts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.errors import InputError, MismatchError
from cliplens.hooked import FrozenHead, HookedTower, affine

Towards = Float[Tensor, "batch d_embed"]
_STREAM = re.compile(r"^(hook_(pos_)?embed|blocks\.\d+\.hook_(resid_(pre|mid|post)|attn_out|mlp_out))$")
_INNER = re.compile(r"^blocks\.(\d+)\.(attn\.hook_z|mlp\.hook_post)$")
_HEAD_HOOKS = ("hook_pooled", "hook_projected", "hook_embedding")
_TINY = 1e-12
KINDS = f"{', '.join(_HEAD_HOOKS)}, a block's residual hooks, hook_attn_out, hook_mlp_out, attn.hook_z, mlp.hook_post"


@dataclass(frozen=True)
class DirectPath:
    """An activation whose product with a direction is a share of the similarity with `towards`."""

    acts: Float[Tensor, "batch pos width"]
    """The activation at the hook, heads side by side."""
    directions: Callable[[Towards], Float[Tensor, "batch pos width"]]
    offset: Callable[[Towards], Float[Tensor, " batch"]]
    """What the head adds whatever the stream: norm offsets, projection biases."""
    elsewhere: Callable[[Towards], Float[Tensor, " batch"]]
    """What reaches the head past this hook: embeddings, other blocks, other heads."""
    similarity: Callable[[Towards], Float[Tensor, " batch"]]


def direct_path(
    tower: HookedTower, inputs: Tensor, hook: str, reads: str | None = None, copies: int = 1
) -> tuple[DirectPath, Tensor]:
    """The direct path from a hook, and the activation at `reads` (the hook itself when None), for one batch.

    With `copies` each input stands so many times in a row, run only once: for several directions per input.

    Raises:
        UnknownNameError: no such hook.
        InputError: what stands at the hook reaches the output only through something that is not linear.
    """
    tower.check_names([hook, *([reads] if reads else [])])
    if not (_STREAM.match(hook) or _INNER.match(hook) or hook in _HEAD_HOOKS):
        raise InputError(expected=f"one of {KINDS}", found=repr(hook), fix="attribute at one of these")
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
    """How a direction in the stream looks at the hook."""
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
        raise _not_direct(hook, "a norm behind the branch")
    if hook.endswith("hook_z") and not torch.equal(block.attn.pre_output(acts), acts):
        raise _not_direct(hook, "a norm or scale behind the heads")


def _not_direct(hook: str, between: str) -> InputError:
    return InputError(
        expected="a hook whose activation adds to the stream directly",
        found=f"{hook}, with {between} in between",
        fix="attribute at the block's attn_out or mlp_out",
    )


def _flat(acts: Tensor) -> Tensor:
    return acts.flatten(2)


def check_towards(towards: Tensor, inputs: Tensor, tower: HookedTower) -> None:
    """Refuse directions that do not pair with the inputs row by row, or that are no directions.

    Raises:
        MismatchError: another shape.
        InputError: not of norm 1.
    """
    if towards.shape != (len(inputs), tower.cfg.d_embed):
        raise MismatchError(
            expected=f"one direction per input, [{len(inputs)}, {tower.cfg.d_embed}]",
            found=str(list(towards.shape)),
            fix="pair inputs and directions row by row",
        )
    if not torch.allclose(towards.norm(dim=-1), torch.ones_like(towards[:, 0]), atol=1e-2):
        raise InputError(
            expected="unit-norm embeddings of the other tower",
            found=f"norms from {float(towards.norm(dim=-1).min()):.3g} to {float(towards.norm(dim=-1).max()):.3g}",
            fix="encode with normalize=True",
        )
