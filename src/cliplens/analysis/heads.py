"""Direct attribution of an image-text similarity to attention heads and MLPs."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cliplens.analysis.parts import Attribution
from cliplens.analysis.paths import check_towards
from cliplens.hooked import FrozenHead, HookedAttention, HookedTower, check_open

_TINY = 1e-12


def attribute_heads(
    tower: HookedTower, inputs: Shaped[Tensor, "input ..."], towards: Float[Tensor, "batch d_embed"]
) -> Attribution:
    """Return the direct contribution of each head and MLP to the cosine between each input and a direction.

    The final residual stream is the sum of the embeddings and the outputs of all heads and MLPs. With the scale of the
    final norm and the norm of the output held fixed, the cosine is therefore a sum too, exact for this input. Indirect
    effects through later blocks are not attributed; see `attribute_latents`. This is the decomposition of Gandelsman et
    al., arXiv 2310.05916, by head.

    Args:
        tower: `clip.vision` or `clip.text`.
        inputs: images, or token ids.
        towards: one unit-norm direction per input, usually the embedding of its match by the other tower.

    Returns:
        An attribution in units of cosine similarity, summed over positions. The parts have TransformerLens' names:
        embed, pos_embed, L0H0, ..., 0_mlp_out, ... A block with a norm between its heads and the stream has one part,
        such as 0_attn_out. `rest` holds "attention biases" and "head offset" (norm offsets, projection biases, the MLP
        of a pooler).

    Raises:
        InputError: the tower does not expose its blocks, or its head is not affine with its norms held fixed.
        MismatchError: `towards` has another number of rows than `inputs`.
    """
    check_open(tower)
    check_towards(towards, inputs, tower)
    layers = range(tower.cfg.n_layers)
    names = ["hook_embed", *(["hook_pos_embed"] if tower.adds_pos_embed else [])]
    names += [_attention_hook(tower, layer) for layer in layers] + [f"blocks.{layer}.hook_mlp_out" for layer in layers]
    last = f"blocks.{layers[-1]}.hook_resid_post"
    with torch.no_grad():
        got = tower.read(inputs, [*names, last, "hook_projected"])
    head = FrozenHead(tower, got[last], tower.checked(inputs))
    length = head.output.norm(dim=-1, keepdim=True).clamp_min(_TINY)
    with torch.no_grad():
        return _summed(tower, got, names, head, towards / length)


def _summed(
    tower: HookedTower, got: dict[str, Tensor], names: list[str], head: FrozenHead, towards: Tensor
) -> Attribution:
    directions = head.directions(towards)
    parts: dict[str, Tensor] = {}
    biases = torch.zeros_like(towards[:, 0])
    for name in names:
        if name.endswith("hook_z"):
            layer = int(name.split(".")[1])
            shares, bias = _of_heads(tower.blocks[layer].attn, got[name], directions)
            parts |= {f"L{layer}H{i}": share for i, share in enumerate(shares.unbind(1))}
            biases = biases + bias
        else:
            parts[_label(name)] = (got[name] * directions).sum((1, 2))
    similarity = (head.output * towards).sum(-1)
    rest = {"attention biases": biases, "head offset": (head.offset * towards).sum(-1)}
    return Attribution(torch.stack(list(parts.values()), 1), similarity, rest, tuple(parts))


def _of_heads(attn: HookedAttention, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    seen = torch.einsum("bpd,hed->bphe", directions, attn.W_O)
    shares = (attn.pre_output(z) * seen).sum((1, 3))
    bias = torch.zeros_like(shares[:, 0]) if attn.b_O is None else (directions @ attn.b_O).sum(1)
    return shares, bias


def _attention_hook(tower: HookedTower, layer: int) -> str:
    block = tower.blocks[layer]
    behind_norm = block.post_norm or block.after_attn is not None
    return f"blocks.{layer}.hook_attn_out" if behind_norm else f"blocks.{layer}.attn.hook_z"


def _label(hook: str) -> str:
    parts = hook.split(".")
    own = parts[-1].removeprefix("hook_")
    return own if len(parts) == 1 else f"{parts[1]}_{own}"
