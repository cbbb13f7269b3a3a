"""Tokenise captions, and count those that are truncated to the context length."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

Tokenizer = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Tokenised:
    """Token ids of captions, and the number of captions that were truncated."""

    tokens: Int64[Tensor, "caption context"]
    truncated: int


def tokenised(captions: Sequence[str], tokenizer: Tokenizer) -> Tokenised:
    """Return the token ids of captions, truncated and padded by the tokenizer.

    A caption counts as truncated if a context longer by one changes its tokens. With a tokenizer without the argument
    `context_length`, every caption that fills the context counts as truncated.
    """
    tokens = tokenizer(list(captions)).long()
    pad = int(getattr(tokenizer, "pad_token_id", 0) or 0)
    full = (tokens[:, -1] != pad).nonzero()[:, 0].tolist()
    if not full or not _takes_context(tokenizer):
        return Tokenised(tokens, len(full))
    context = tokens.shape[1]
    longer = tokenizer([captions[i] for i in full], context_length=context + 1).long()  # type: ignore[call-arg]
    cut = (longer[:, :context] != tokens[full]).any(dim=1)
    return Tokenised(tokens, int(cut.sum()))


def _takes_context(tokenizer: Tokenizer) -> bool:
    try:
        return "context_length" in inspect.signature(tokenizer).parameters
    except (TypeError, ValueError):
        return False
