"""SEM: debias text embeddings by scaling the code of each latent of a dictionary."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.sae import Dictionary
from cliplens_plugins.bias.data import Prompts

SemVariant = Literal["b", "bi", "i"]
"""Rule for the kept part of a code. "b": its relevance, from the prompt's own codes, and its bias; "bi": the
same, with the relevance from the median over paraphrases; "i": its relevance only."""


def sem(
    dictionary: Dictionary, prompts: Prompts, variant: SemVariant = "b", *, error_kept: bool = False
) -> Callable[[Float[Tensor, "row d"]], Float[Tensor, "row d"]]:
    """Return the function by which SEM changes text embeddings.

    Codes z are computed with ReLU and without top-k. For each latent:

    - relevance c: the share of neutral prompts whose code is below that of the prompt;
    - bias b: for each group, the smaller of two shares of codes below the group's median code (of the neutral prompts,
      of the prompts of the other groups); the largest over groups;
    - weight w: (1 + c - b)^2 for "b" and "bi", c^2 for "i". It can reach 4.

    The new code is w z + (1 - w) m, where m is the median code of the neutral prompts.

    Args:
        dictionary: a dictionary of the final embedding.
        prompts: neutral prompts and prompts of each group.
        variant: "b", "bi" or "i". With "bi", all rows of one call are paraphrases of one prompt, and c is computed
            from their median.
        error_kept: add the decoded change to the embedding, instead of decoding the changed codes. This option is ours:
            a dictionary trained with top-k decodes codes without top-k poorly.

    Source: arXiv 2603.19028 and its code, which uses 328 neutral prompts of its own.
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
    """Return the codes with ReLU as activation, whichever the dictionary has."""
    given = reader.process_sae_in(rows.to(reader.W_enc))
    return torch.relu(given @ reader.W_enc + reader.b_enc)
