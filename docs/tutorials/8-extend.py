# %% [markdown]
# # Add a metric, add a tower
#
# A plugin is a class in a package of yours, named in an entry point; then cliplens uses it as one of its own. Here both are
# tried in a notebook first.

# %%
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import cliplens
from cliplens.contracts import Metric, Tower
from cliplens.hooked import (
    HookedBlock,
    HookedLayerNorm,
    HookedMLP,
    HookedVisionTower,
    PackedAttention,
    TowerConfig,
    hook_point,
)
from cliplens.records import Batch, Column, Findings
from cliplens.sae import dictionary_config, train
from cliplens.stream import stream
from cliplens.tally import Sums, tally
from cliplens.testing import check_adapter

# %% [markdown]
# ## A metric
#
# It sees every batch once and keeps sums, so that it runs on any number of pairs and processes.


# %%
class Steadiness(Metric):
    """Mean over standard deviation of the activations on images, where a latent fires."""

    name: ClassVar[str] = "steadiness"
    needs: ClassVar[frozenset[Any]] = frozenset()

    def __init__(self) -> None:
        self.sums = Sums()

    def update(self, batch: Batch) -> None:
        codes = batch.codes.of("image")
        if codes is not None:
            self.sums.add_per_latent("n", codes.latents, None, codes.d_sae)
            self.sums.add_per_latent("sum", codes.latents, codes.values, codes.d_sae)
            self.sums.add_per_latent("squares", codes.latents, codes.values**2, codes.d_sae)

    def merge(self, other: Metric) -> None:
        self.sums.merge(other.sums)

    def state(self) -> dict[str, Tensor]:
        return self.sums.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.sums.load_state(state)

    def findings(self, decoder: Tensor | None) -> Findings:
        n, total, squares = (self.sums[name].double() for name in ("n", "sum", "squares"))
        mean = total / n
        steady = (mean / (squares / n - mean**2).clamp_min(1e-12).sqrt()).cpu().numpy()
        about = Column("steadiness", "Mean over deviation of its activations on images.", nan="it never fires")
        return Findings({"steadiness": steady}, (about,))


clip, pairs = cliplens.load("world", device="cpu"), cliplens.read_pairs("world:600")
rows = cliplens.activations(clip, pairs, batch_size=256)
dictionary = train(dictionary_config("topk", rows.d_in, d_sae=64, k=4), rows, samples=20_000)
sites = ["vision.hook_embedding", "text.hook_embedding"]
found = tally((dictionary.batch(acts) for acts in stream(clip, pairs, sites)), [Steadiness()], decoder=None)
found.table.top("steadiness", 5)

# %% [markdown]
# In `pyproject.toml` of your package:
#
#     [project.entry-points."cliplens.metrics"]
#     steadiness = "my_package:Steadiness"
#
# ## A tower
#
# A model that nobody knows: patches, two blocks of `nn.MultiheadAttention` and an MLP, the mean over positions.

# %%
D, HEADS, SIDE, PATCH = 32, 2, 16, 8


class Block(nn.Module):
    """Attention, then an MLP, each after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, HEADS, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(D, 2 * D), nn.ReLU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.between(x))


class Encoder(nn.Module):
    """The stock model."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, D, PATCH, PATCH)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, D))
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.last = nn.LayerNorm(D)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.last(x).mean(1)


# %% [markdown]
# The tower wraps the parts of the stock model and says what happens around the blocks. Weights stay shared.


# %%
def wrapped(block: Block) -> HookedBlock:
    """Return a block with hooks around the parts of the stock one."""
    attention = PackedAttention(block.attention, d_model=D, n_heads=HEADS, d_head=D // HEADS)
    mlp = HookedMLP(block.feed, block.feed[0], block.feed[1], block.feed[2], d_model=D, d_mlp=2 * D)
    norms = HookedLayerNorm(block.before, D), HookedLayerNorm(block.between, D)
    return HookedBlock(block, norms[0], attention, norms[1], mlp, d_model=D)


class HookedEncoder(HookedVisionTower):
    """The encoder as a TransformerLens root."""

    def __init__(self, stock: Any) -> None:
        n = (SIDE // PATCH) ** 2
        cfg = TowerConfig("mine", "vision", "mine", D, 2, HEADS, D // HEADS, 2 * D, n, D, image_size=(SIDE, SIDE))
        super().__init__(stock, cfg)
        self.n_special = 0
        self.blocks = nn.ModuleList(wrapped(block) for block in stock.blocks)
        self.ln_final = HookedLayerNorm(stock.last, D)
        self.hook_pooled = hook_point(D)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        return self.stock.patch.weight.dtype

    def run_stock(self, inputs: Tensor) -> Tensor:
        return self.stock(inputs)

    def embed(self, inputs: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        x = self.hook_embed(self.hook_patch_embed(self.stock.patch(inputs).flatten(2).transpose(1, 2)))
        return x + self.hook_pos_embed(self.stock.place.expand(len(x), -1, -1).clone()), {"attn_mask": None}

    def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
        return self.ln_final(stream).mean(1)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled


class MyTower(Tower):
    """Opens an `Encoder`."""

    family: ClassVar[str] = "mine"

    def opens(self, model: nn.Module, side: str) -> bool:
        return side == "vision" and type(model) is Encoder

    def open(self, model: nn.Module, side: str) -> HookedEncoder:
        return HookedEncoder(model)


# %% [markdown]
# Prove it: equal to stock, every hook fires, every write is a true edit. The error names what is wrong.

# %%
stock = Encoder().eval()
check_adapter(MyTower(), stock, "vision")
tower = MyTower().open(stock, "vision")
_, cache = tower.run_with_cache(torch.randn(2, 3, SIDE, SIDE))
cache["blocks.1.attn.hook_pattern"].shape

# %%
tower.OV

# %% [markdown]
# [Contributing](../contributing.md) lists the questions that come up, and `examples/` holds complete packages to copy.
