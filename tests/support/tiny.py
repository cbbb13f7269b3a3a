"""Tiny open_clip models with random weights, every parameter away from its neutral value so that no part can hide."""

from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from torch import Tensor, nn

VISION: dict[str, Any] = {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
TEXT: dict[str, Any] = {"context_length": 8, "vocab_size": 49, "width": 48, "heads": 3, "layers": 3}
CLASSES = {"clip": CLIP, "custom": CustomTextCLIP, "coca": CoCa}
COCA: dict[str, Any] = {
    "multimodal_cfg": {"context_length": 8, "vocab_size": 49, "width": 48, "heads": 3, "layers": 1},
    "vision_cfg": {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4, "output_tokens": True},
    "text_cfg": {"embed_cls": True, "output_tokens": True},
}


def tiny_model(
    kind: str = "clip",
    *,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    seed: int = 0,
    **model: Any,
) -> nn.Module:
    """A tiny two-tower model in eval mode; `vision` and `text` override the configs above."""
    torch.manual_seed(seed)
    if kind == "coca":
        vision = {**COCA["vision_cfg"], **(vision or {})}
        text = {**COCA["text_cfg"], **(text or {})}
        model = {"multimodal_cfg": COCA["multimodal_cfg"], **model}
    made = CLASSES[kind](
        embed_dim=32, vision_cfg={**VISION, **(vision or {})}, text_cfg={**TEXT, **(text or {})}, **model
    )
    return shaken(made, seed)


def shaken(model: nn.Module, seed: int = 0, *, weights: bool = False) -> nn.Module:
    """The model in eval mode, its norms' gains and offsets and every bias moved off 1 and 0.

    With `weights` the matrices too are drawn anew, large enough for every part to be heard in the output.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            elif weights and parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
    return model.eval()


def tiny_images(n: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    """Random images [n, 3, size, size]."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tiny_tokens(n: int = 4, context: int = 8, vocab: int = 49, seed: int = 0) -> Tensor:
    """Random captions: start (vocab - 2), 1 to context - 2 words, end (vocab - 1), zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocab - 2, (n, context), generator=generator)
    ends = torch.randint(2, context, (n,), generator=generator)
    place = torch.arange(context)
    tokens[place > ends[:, None]] = 0
    tokens[torch.arange(n), ends] = vocab - 1
    tokens[:, 0] = vocab - 2
    return tokens


def tiny_preprocess(image: Image.Image) -> Tensor:
    """To [3, 32, 32] in [-1, 1]."""
    pixels = torch.tensor(list(image.convert("RGB").resize((32, 32)).getdata()), dtype=torch.float32)
    return pixels.view(32, 32, 3).permute(2, 0, 1) / 127.5 - 1


class TinyTokenizer:
    """Letters to ids 3..., framed as CLIP frames captions; vocabulary 49, context 8."""

    sot_token_id, eot_token_id = 47, 48
    context_length = 8

    def __call__(self, captions: list[str]) -> Tensor:
        out = torch.zeros(len(captions), self.context_length, dtype=torch.int64)
        for row, caption in zip(out, captions, strict=True):
            ids = [47, *(3 + (ord(c) % 44) for c in caption), 48]
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], 48]
            row[: len(ids)] = torch.tensor(ids)
        return out

    def decode(self, ids: Any) -> str:
        """Ids as they are."""
        return " ".join(str(int(i)) for i in ids)
