"""The text encoder of an open_clip model as one module.

In `CLIP` the parts of the text transformer are attributes of the model. `InlinedText` shares them in one module, so
that it has the same interface as the `TextTransformer` of `CustomTextCLIP` and `CoCa`.
"""

from typing import Any

from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn


def stock_text(model: nn.Module) -> nn.Module | None:
    """Return the text encoder of an open_clip model as one module; None without one."""
    return InlinedText(model) if isinstance(model, CLIP) else getattr(model, "text", None)


class InlinedText(nn.Module):
    """The text transformer of a `CLIP` as one module. It shares the parts, which are attributes of the model.

    Parameters, buffers and options are read from the model each time, so that a tensor put in the place of another is
    seen.
    """

    cls_emb = None
    use_pad_mask = False
    model: CLIP

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.__dict__["model"] = model
        self.transformer = model.transformer
        self.token_embedding = model.token_embedding
        self.ln_final = model.ln_final
        if isinstance(model.text_projection, nn.Linear):
            self.add_module("projection", model.text_projection)
        if hasattr(model, "parametrizations"):
            self.add_module("reparametrised", model.parametrizations)
        self.training = False
        _ = self.positional_embedding, self.text_projection

    @property
    def positional_embedding(self) -> Tensor:
        """The model's position embeddings."""
        return self._of_model("positional_embedding")

    @property
    def text_projection(self) -> Any:
        """The model's projection: a matrix, a linear layer, or None."""
        return self._of_model("text_projection")

    def _of_model(self, name: str) -> Any:
        """Return an attribute of the model; a parameter is listed among this module's own, so that it moves with it."""
        value = getattr(self.model, name)
        if isinstance(value, nn.Parameter):
            self._parameters[name] = value
        return value

    def _apply(self, fn: Any, recurse: bool = True) -> "InlinedText":
        """Move the mask, which belongs to the model, with the weights."""
        super()._apply(fn, recurse)
        if self.model.attn_mask is not None:
            self.model.attn_mask = fn(self.model.attn_mask)
        return self

    @property
    def attn_mask(self) -> Tensor | None:
        """The model's causal mask."""
        return self.model.attn_mask

    @property
    def pool_type(self) -> str:
        """The pooling of the model: "first", "last", "argmax", "eos" or "none"."""
        return self.model.text_pool_type

    @property
    def eos_id(self) -> int:
        """The id of the end token."""
        return self.model.text_eos_id

    @property
    def vocab_size(self) -> int:
        """The number of token ids."""
        return self.model.vocab_size

    def forward(self, text: Int[Tensor, "batch context"]) -> Float[Tensor, "batch d_embed"]:
        """Return text embeddings, computed as in `CLIP.encode_text`."""
        dtype = self.transformer.get_cast_dtype()
        x = self.token_embedding(text).to(dtype) + self.positional_embedding.to(dtype)
        x = self.ln_final(self.transformer(x, attn_mask=self.attn_mask))
        return project_text(self, text_global_pool(x, text, self.pool_type, eos_token_id=self.eos_id))


def project_text(stock: Any, pooled: Float[Tensor, "batch *pos d_pool"]) -> Tensor:
    """Apply the text projection: none, a linear layer or a matrix."""
    if stock.text_projection is None:
        return pooled
    if isinstance(stock.text_projection, nn.Linear):
        return stock.text_projection(pooled)
    return pooled @ stock.text_projection
