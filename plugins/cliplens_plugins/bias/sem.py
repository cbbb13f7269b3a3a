"""SEM: text embeddings are debiased by scaling the codes of a dictionary, latent by latent."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.sae import Dictionary
from cliplens_plugins.bias.data import Prompts

SemVariant = Literal["b", "bi", "i"]
"""b: the prompt's own codes decide its relevance; bi: the median over its paraphrases; i: relevance alone."""


def sem(
    dictionary: Dictionary, prompts: Prompts, variant: SemVariant = "b", *, error_kept: bool = False
) -> Callable[[Float[Tensor, "row d"]], Float[Tensor, "row d"]]:
    """Return SEM's change of text embeddings.

    Codes are taken with ReLU and without top-k. c[k] is the share of neutral prompts whose code lies below the prompt's
    (content). b[k] is the largest over groups of min(share of neutral prompts below the group's median code, share of
    other groups' prompts below it) (bias). Codes become z' = w z + (1 - w) median of the neutral prompts, with
    w = (1 + c - b)^2 for b and bi, and c^2 for i. w reaches 4.

    Args:
        dictionary: of the final embedding.
        prompts: neutral prompts and prompts of each group.
        variant: "b", "bi" or "i". For "bi", rows that are changed together are paraphrases of one prompt: c is taken
            from their median.
        error_kept: add the decoded change to the embedding instead of decoding the changed codes. Ours: decoding codes
            without top-k is poor for a dictionary that was trained with it.

    Source: arXiv 2603.19028 and its code. Ours: neutral prompts are the caller's, the source has 328.
    """
    reader = dictionary.folded("text")
    reader.turn_off_forward_pass_hook_z_reshaping()
    neutral = _codes(reader, prompts.neutral)
    middle = neutral.median(0).values
    bias = _bias(reader, prompts, neutral)

    def change(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        codes = _codes(reader, rows)
        asked = codes.median(0, keepdim=True).values if variant == "bi" else codes
        content = _share_below(neutral, asked)
        weight = content.square() if variant == "i" else (1 + content - bias).square()
        changed = weight * codes + (1 - weight) * middle
        if error_kept:
            return rows.double() + (reader.decode(changed) - reader.decode(codes)).double()
        return reader.decode(changed).double()

    return change


def _bias(reader: Any, prompts: Prompts, neutral: Float[Tensor, "neutral d_sae"]) -> Float[Tensor, " d_sae"]:
    codes = [_codes(reader, of_group) for of_group in prompts.group]
    found = []
    for g, own in enumerate(codes):
        level = own.median(0).values[None]
        others = torch.cat([c for i, c in enumerate(codes) if i != g])
        found.append(torch.minimum(_share_below(neutral, level), _share_below(others, level))[0])
    return torch.stack(found).amax(0)


def _share_below(many: Float[Tensor, "sample d_sae"], level: Float[Tensor, "row d_sae"]) -> Float[Tensor, "row d_sae"]:
    """Return the share of samples whose code is strictly below each level."""
    ordered = many.T.contiguous().sort(1).values
    below = torch.searchsorted(ordered, level.T.contiguous(), side="left")
    return below.T.to(level.dtype) / len(many)


@torch.no_grad()
def _codes(reader: Any, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d_sae"]:
    """Return codes by ReLU alone, whatever the dictionary's own activation."""
    given = reader.process_sae_in(rows.to(reader.W_enc))
    return torch.relu(given @ reader.W_enc + reader.b_enc)
