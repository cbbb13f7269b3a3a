"""The base class of text towers, with the interface that SAELens expects of a language model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cliplens.errors import InputError
from cliplens.hooked.base import Inputs
from cliplens.hooked.config import TowerConfig
from cliplens.hooked.part import borrow
from cliplens.hooked.tower import HookedTower
from cliplens.hooked.weights import tensor_of


class TokenizerShim:
    """A CLIP tokenizer with the methods of a Hugging Face tokenizer that SAELens calls."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        self.bos_token_id = _first(inner, "bos_token_id", "sot_token_id")
        self.eos_token_id = _first(inner, "eos_token_id", "eot_token_id")
        pad = _first(inner, "pad_token_id")
        self.pad_token_id = 0 if pad is None else pad

    def __call__(self, captions: Sequence[str]) -> Int[Tensor, "batch context"]:
        return self.tokenizer(list(captions))

    def decode(self, ids: Any) -> str:
        """Return the caption of these token ids; the ids in angle brackets, if the tokenizer cannot decode."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        decode = getattr(self.tokenizer, "decode", None) or getattr(inner, "decode", None)
        return str(decode(ids)) if decode is not None else "".join(f"<{int(i)}>" for i in np.ravel(ids))


def _first(inner: Any, *names: str) -> int | None:
    return next((value for n in names if (value := getattr(inner, n, None)) is not None), None)


class HookedTextTower(HookedTower):
    """A tower whose inputs are token ids [batch, context]."""

    tokenizer: TokenizerShim | None
    any_length: bool = False
    """Whether token ids may be shorter than the context (not padded)."""

    def __init__(self, stock: nn.Module, cfg: TowerConfig) -> None:
        super().__init__(stock, cfg)
        borrow(self, tokenizer=None)

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The token embeddings."""
        return self.token_embedding()

    def token_embedding(self) -> Float[Tensor, "d_vocab d_model"]:
        """Return the token embeddings of the stock model, from `get_input_embeddings` if it has that method."""
        stock: Any = self.stock
        found = stock.get_input_embeddings() if hasattr(stock, "get_input_embeddings") else stock.token_embedding
        return tensor_of(found, "weight")

    def blank_input(self) -> Int[Tensor, "1 context"]:
        """Return one row of token ids 0."""
        return torch.zeros(1, self._cfg.n_ctx, dtype=torch.int64, device=self.device)

    def to_str_tokens(self, captions: str | Sequence[str] | Int[Tensor, "*batch context"]) -> Any:
        """Return the text of each token, as many as a cache has positions: start, words, end and padding.

        Args:
            captions: one caption or row of token ids, which gives a list; several give a list of lists.

        Raises:
            InputError: the model has no tokenizer.
        """
        tokens = captions if isinstance(captions, Tensor) else self.to_tokens(captions)
        one = isinstance(captions, str) or tokens.ndim == 1
        tokenizer = self.tokenizer or TokenizerShim(None)
        read = [[tokenizer.decode([int(i)]) for i in row] for row in tokens.reshape(-1, tokens.shape[-1])]
        return read[0] if one else read

    def to_tokens(
        self,
        captions: str | Sequence[str],
        prepend_bos: bool | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
        padding_side: str | None = None,
    ) -> Int[Tensor, "batch context"]:
        """Return the token ids of captions: start, text, end, and padding to the context length, as CLIP does.

        Raises:
            InputError: the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise InputError(
                expected="a model with a tokenizer", found="none", fix="pass it: cliplens.wrap(model, tokenizer=...)"
            )
        tokens = self.tokenizer([captions] if isinstance(captions, str) else captions)
        return tokens.to(self.device) if move_to_device else tokens

    def checked(self, inputs: Inputs) -> Int[Tensor, "batch context"]:
        """Return token ids on the device of the weights. Captions are tokenised first.

        Raises:
            InputError: `inputs` are floats, token ids of another length than the context, or not captions.
        """
        if not isinstance(inputs, Tensor):
            inputs = self._tokenised(inputs)
        n = self._cfg.n_ctx
        fits = inputs.ndim == 2 and (inputs.shape[1] == n or (self.any_length and inputs.shape[1] < n))
        whole = not (inputs.is_floating_point() or inputs.is_complex() or inputs.dtype == torch.bool)
        if not (fits and whole):
            raise InputError(
                expected=f"token ids, integers [batch, {n}], for the text tower",
                found=f"{inputs.dtype} {list(inputs.shape)}",
                fix="tokenise captions with clip.tokenizer; pass images to clip.vision",
            )
        if inputs.device.type == "cpu":  # elsewhere the question would wait for the device
            self._check_ids(inputs)
        return inputs.to(self.device)

    def _check_ids(self, tokens: Int[Tensor, "batch context"]) -> None:
        size = self._cfg.d_vocab
        if not len(tokens) or (size and not 0 <= int(tokens.min()) <= int(tokens.max()) < size):
            raise InputError(
                expected=f"one caption or more, token ids from 0 to {size - 1}",
                found=f"ids from {int(tokens.min())} to {int(tokens.max())}" if len(tokens) else "no captions",
                fix="put captions through clip.tokenizer, the tokenizer of this model",
            )

    def _tokenised(self, captions: Any) -> Tensor:
        given = [captions] if isinstance(captions, str) else captions
        if not (isinstance(given, Sequence) and given and all(isinstance(caption, str) for caption in given)):
            raise InputError(
                expected="token ids or captions for the text tower",
                found=f"{type(captions).__name__} {str(captions)[:60]!r}",
                fix="pass a string or a list of strings; pass images to clip.vision",
            )
        return self.to_tokens(given)
