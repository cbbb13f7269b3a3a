"""SLIP and DeCLIP: state dicts of their authors' layout, made here, against a forward by the authors' modules."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

import cliplens
from cliplens.errors import InputError, MismatchError, UnsafeFileError
from cliplens_hooks.models.relatives import DeclipTokenizer, declip_to_open_clip, slip_to_open_clip
from support.tiny import shaken

W, E, C, V = 64, 16, 8, 49


class Block(nn.Module):
    """The residual block both repositories took from CLIP: sequence first."""

    def __init__(self, d: int, heads: int, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(d, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        parts = [("c_fc", nn.Linear(d, 4 * d)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * d, d))]
        self.mlp = nn.Sequential(OrderedDict(parts))
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    def __init__(self, d: int, heads: int, mask: Tensor | None) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(d, heads, mask) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x.permute(1, 0, 2)).permute(1, 0, 2)


class Text(nn.Module):
    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.transformer = Stack(W, 1, torch.full((C, C), float("-inf")).triu(1))
        self.token_embedding = nn.Embedding(V, W)
        self.positional_embedding = nn.Parameter(torch.randn(C, W))
        self.ln_final = nn.LayerNorm(W)
        self.text_projection = nn.Linear(W, E) if linear else nn.Parameter(torch.randn(W, E))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.ln_final(self.transformer(self.token_embedding(tokens) + self.positional_embedding))
        x = x[torch.arange(len(x)), tokens.argmax(-1)]
        return self.text_projection(x) if isinstance(self.text_projection, nn.Linear) else x @ self.text_projection


class Slip(Text):
    def __init__(self) -> None:
        super().__init__(linear=False)
        self.visual = timm.create_model(
            "vit_base_patch16_224", num_classes=0, embed_dim=64, depth=2, num_heads=1, img_size=32
        )
        self.image_projection = nn.Parameter(torch.randn(64, E))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.image_mlp = nn.Sequential(OrderedDict([("layer1", nn.Linear(64, 8))]))

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images) @ self.image_projection

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self(tokens)


class DeclipVision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, W, 16, 16, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(W))
        self.positional_embedding = nn.Parameter(torch.randn(5, W))
        self.ln_pre, self.ln_post = nn.LayerNorm(W), nn.LayerNorm(W)
        self.transformer = Stack(W, 1, None)
        self.proj = nn.Parameter(torch.randn(W, E))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Declip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual, self.encode_text = DeclipVision(), Text(linear=True)
        self.logit_scale = nn.Parameter(torch.ones([1]))
        self.projector, self.predictor = nn.Linear(E, 4), nn.Linear(4, 4)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.visual(images)


KINDS: dict[str, Any] = {"slip": (Slip, slip_to_open_clip), "declip": (Declip, declip_to_open_clip)}


def made(kind: str) -> Any:
    torch.manual_seed(0)
    return shaken(KINDS[kind][0]())


@pytest.mark.parametrize("kind", KINDS)
def test_both_towers_equal_the_authors(kind: str, tmp_path: Path) -> None:
    theirs = made(kind)
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in theirs.state_dict().items()}}, path)
    clip = cliplens.load(f"{kind}:{path}", device="cpu")
    images, tokens = torch.randn(3, 3, 32, 32), torch.randint(1, V, (3, C))
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_image(images), theirs.encode_image(images), rtol=0, atol=2e-5)
        torch.testing.assert_close(clip.encode_text(tokens), theirs.encode_text(tokens), rtol=0, atol=2e-5)
    assert "blocks.1.attn.hook_pattern" in clip.vision.hook_dict
    assert "0.485" in clip.identity.preprocess


@pytest.mark.parametrize("kind", KINDS)
def test_other_layouts_are_refused(kind: str) -> None:
    with pytest.raises(MismatchError, match="layout of"):
        KINDS[kind][1]({"weight": torch.zeros(2)})
    broken = made(kind).state_dict()
    broken.pop("visual.transformer.resblocks.0.ln_1.weight" if kind == "declip" else "visual.norm.weight")
    with pytest.raises(MismatchError, match="Missing key"):
        KINDS[kind][1](broken)


def test_files_are_opened_as_tensors_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        cliplens.load("slip:/no/such/file.pt")
    torch.save({"state_dict": made("slip").state_dict(), "args": Path("x")}, tmp_path / "args.pt")
    with pytest.raises(UnsafeFileError, match="tensors only"):
        cliplens.load(f"slip:{tmp_path / 'args.pt'}")


def test_declip_ids_account_for_the_mask_token() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    stock = SimpleTokenizer(context_length=8)
    ids = DeclipTokenizer(stock)(["a cat"])[0].tolist()
    assert ids[0] == 49407
    assert ids[3] == 49408
    assert ids[1:3] == stock(["a cat"])[0, 1:3].tolist()
