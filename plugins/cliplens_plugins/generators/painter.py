"""Define the network of the embedded generator: a small diffusion transformer that predicts the clean image.

The architecture is DiT (https://arxiv.org/abs/2212.09748). The state at time t is `t * image + (1 - t) * noise`. The
velocity of flow matching (https://arxiv.org/abs/2210.02747) is `(predicted image - state) / (1 - t)`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_CELLS = 4

Pictures = Float[Tensor, "sample 3 y x"]
"""Pixels from -1 to 1."""


@dataclass(frozen=True)
class PainterConfig:
    """Sizes of the network."""

    side: int = 48
    patch: int = 8
    d_embed: int = 64
    width: int = 128
    layers: int = 3
    heads: int = 4
    tilts: int = 3

    @property
    def tokens(self) -> int:
        """Number of patches of an image."""
        return (self.side // self.patch) ** 2


class Painter(nn.Module):
    """Predicts the clean image from the noisy image, the time, an embedding and the layout.

    Each token is given its position within its cell, and the clockwise distance of its cell from the first copy. Its
    output is a mask, a foreground colour and a background, so that outlines are shared by all colours and backgrounds.
    """

    cell_of: Int[Tensor, " token"]
    within_of: Int[Tensor, " token"]

    def __init__(self, config: PainterConfig) -> None:
        super().__init__()
        self.config = config
        area = config.patch**2
        self.enter = nn.Linear(3 * area, config.width)
        self.place = nn.Parameter(0.02 * torch.randn(config.tokens, config.width))
        self.within = nn.Embedding(config.tokens // _CELLS, config.width)
        self.rank = nn.Embedding(_CELLS, config.width)
        self.time = _mlp(config.width, config.width)
        self.condition = _mlp(config.d_embed, config.width)
        self.tilt = nn.Embedding(config.tilts, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.layers))
        self.modulate = nn.Linear(config.width, 6 * config.width)
        self.leave_norm = nn.LayerNorm(config.width)
        self.ground = nn.Linear(config.width, 3 * area)
        self.paint = nn.Linear(config.width, 3)
        self.mask = nn.Linear(config.width, area)
        cell, within = _cells(math.isqrt(config.tokens))
        self.register_buffer("cell_of", cell, persistent=False)
        self.register_buffer("within_of", within, persistent=False)

    def forward(
        self,
        state: Pictures,
        time: Float[Tensor, " sample"],
        embedding: Float[Tensor, "sample d_embed"],
        layout: "SceneLayout",
    ) -> Pictures:
        """Return the predicted clean image."""
        return self.draw(state, time, self.condition(embedding), layout)

    def draw(
        self,
        state: Pictures,
        time: Float[Tensor, " sample"],
        scene: Float[Tensor, "sample width"],
        layout: "SceneLayout",
    ) -> Pictures:
        """Return the predicted clean image from an encoding of the scene (of an embedding or of its factors)."""
        given = F.silu(scene + self.tilt(layout.tilt) + self.time(_waves(time, self.config.width)))
        modulation = self.modulate(given)[:, None].chunk(6, dim=-1)
        clockwise = (self.cell_of - layout.anchor[:, None]) % _CELLS
        x = self.enter(_to_patches(state, self.config.patch)) + self.place
        x = x + self.within(self.within_of) + self.rank(clockwise)
        for block in self.blocks:
            x = block(x, modulation)
        return _to_picture(self._painted(self.leave_norm(x)), self.config.patch)

    def _painted(self, x: Float[Tensor, "sample token width"]) -> Float[Tensor, "sample token pixel"]:
        ground = self.ground(x).unflatten(-1, (3, -1))
        mask = torch.sigmoid(self.mask(x) - 2)[:, :, None, :]
        return (ground + mask * (self.paint(x)[..., None] - ground)).flatten(2)


@dataclass(frozen=True)
class SceneLayout:
    """Properties of an image that embeddings do not encode: the quadrant of the first copy, and the tilt."""

    anchor: Int[Tensor, " sample"]
    tilt: Int[Tensor, " sample"]


class _Block(nn.Module):
    """A transformer block. All blocks share one modulation, to which each adds its own table (https://arxiv.org/abs/2310.00426)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Parameter(0.02 * torch.randn(6, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: Float[Tensor, "sample token width"], modulation: tuple[Float[Tensor, "sample 1 width"], ...]
    ) -> Float[Tensor, "sample token width"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            m + t for m, t in zip(modulation, self.table, strict=True)
        )
        x = x + gate_1 * self._attend(_normed(x) * (1 + scale_1) + shift_1)
        return x + gate_2 * self.mlp(_normed(x) * (1 + scale_2) + shift_2)

    def _attend(self, x: Float[Tensor, "sample token width"]) -> Float[Tensor, "sample token width"]:
        sample, token, width = x.shape
        q, k, v = self.qkv(x).view(sample, token, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(sample, token, width))


def _cells(side: int) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """Return the cell of each token of a square grid, clockwise from the upper left, and its index in the cell."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    half = side // 2
    right, low = x // half, y // half
    clockwise = torch.where(low == 0, right, 3 - right)
    return clockwise.flatten(), (y % half * half + x % half).flatten()


def _mlp(d_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_in, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))


def _normed(x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    return F.layer_norm(x, x.shape[-1:])


def _waves(time: Float[Tensor, " sample"], width: int) -> Float[Tensor, "sample width"]:
    frequency = torch.exp(torch.linspace(0, math.log(200), width // 2, device=time.device, dtype=time.dtype))
    angle = time[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _to_patches(picture: Pictures, patch: int) -> Float[Tensor, "sample token pixel"]:
    return F.unfold(picture, patch, stride=patch).transpose(1, 2)


def _to_picture(patches: Float[Tensor, "sample token pixel"], patch: int) -> Pictures:
    side = patch * math.isqrt(patches.shape[1])
    return F.fold(patches.transpose(1, 2), (side, side), patch, stride=patch)
