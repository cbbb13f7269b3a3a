"""The head of a tower, from the last block to the joint embedding space, as an affine map with frozen norm scales.

The final layer norm divides by a scale that depends on the stream. With this scale frozen, norm, pooling and projection
together are affine, and the contribution of each component of the stream is its dot product with one direction. This
is TransformerLens' convention (cached scales) for direct logit attribution.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from cliplens.errors import InputError
from cliplens.hooked.base import AbstractTower

_HELD = ("hook_scale", "hook_pattern", "hook_mlp_out")
_TOLERANCE = 1e-3


class FrozenHead:
    """The head of a tower for one batch: final norm, pooling and projection, with the scales of norms frozen.

    The pattern of an attention pooler is frozen too, and so is the output of its MLP (SigLIP, PE), a part of `offset`.

    Args:
        tower: a tower of transformer blocks.
        stream: the stream after the last block.
        inputs: the checked inputs of the stream; a caption is read at its end token.

    Raises:
        InputError: the head is not affine even with frozen scales, or its output is not one vector per sample.
    """

    def __init__(self, tower: AbstractTower, stream: Float[Tensor, "batch pos d_model"], inputs: Tensor) -> None:
        self._tower, self._inputs = tower, inputs
        self._held: dict[str, Tensor] = {}
        self.stream = stream.detach()
        with torch.no_grad():
            output = self._run(self.stream, self._keep)
            self.offset = self(torch.zeros_like(self.stream))
            self._check_affine(output)
        self.output: Float[Tensor, "batch d_embed"] = output

    def __call__(self, stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_embed"]:
        """Apply the frozen head to a stream."""
        return self._run(stream, self._hold)

    def directions(self, towards: Float[Tensor, "batch d_embed"]) -> Float[Tensor, "batch pos d_model"]:
        """Return the gradient of ⟨output, towards⟩ with respect to the residual stream."""
        with torch.enable_grad():
            stream = self.stream.clone().requires_grad_()
            return torch.autograd.grad(self(stream), stream, towards)[0]

    def _run(self, stream: Tensor, hook: Callable[..., Tensor]) -> Tensor:
        names = [n for n in self._tower.hook_dict if not n.startswith("blocks.") and n.endswith(_HELD)]
        names = [n for n in names if not n.startswith("ln_pre.")]
        with self._tower.evaluating(), self._tower.hooks([(name, hook) for name in names]):
            output = self._tower.project(self._tower.pool(stream, self._inputs))
        if output.ndim != 2:
            raise _refusal("one vector per sample", f"an output {list(output.shape)}")
        return output

    def _keep(self, value: Tensor, hook: HookPoint) -> Tensor:
        self._held[str(hook.name)] = value
        return value

    def _hold(self, value: Tensor, hook: HookPoint) -> Tensor:
        return self._held[str(hook.name)]

    def _check_affine(self, output: Tensor) -> None:
        doubled = self(2 * self.stream)
        gap = (doubled - 2 * output + self.offset).norm()
        if not bool(gap <= _TOLERANCE * (output.norm() + self.offset.norm())):
            raise _refusal(
                "a head that is affine with frozen norms", "a head that is not (attention pooling with an MLP?)"
            )


def _refusal(expected: str, found: str) -> InputError:
    return InputError(
        expected=f"{expected}, so that contributions add up to the output",
        found=found,
        fix="attribute at 'hook_pooled', 'hook_projected' or 'hook_embedding' instead",
    )


@torch.no_grad()
def affine(
    function: Callable[[Tensor], Tensor], width: int, like: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "width out"], Float[Tensor, " out"]]:
    """Return the matrix and the offset of an affine function of rows.

    Raises:
        InputError: it is not affine.
    """
    eye = torch.eye(width, device=like.device, dtype=like.dtype)
    offset = function(torch.zeros_like(eye[:1]))[0]
    once, twice = function(eye) - offset, function(2 * eye) - offset
    if not torch.allclose(2 * once, twice, rtol=_TOLERANCE, atol=_TOLERANCE * float(once.abs().max())):
        raise _refusal("an affine projection", "a projection that is not affine")
    return once, offset
