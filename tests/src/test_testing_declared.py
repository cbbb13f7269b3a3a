"""`check_adapter` refuses a tower that computes the right output but declares the wrong things about itself."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cliplens import registry
from cliplens.errors import InputError
from cliplens.hooked import HookedTextTower, PackedAttention, TowerConfig, open_tower
from cliplens.testing import TowerCheckError, check_adapter, check_tower
from cliplens_hooks.towers.open_clip import OpenClipTower
from support.tiny import tiny_model

_SPEC = importlib.util.spec_from_file_location(
    "tower_example", Path(__file__).parents[2] / "examples/tower/example_tower.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)


def adapter(build: type | None = None, **changes: Any) -> Any:
    """The adapter of the example, with another tower class or other attributes."""
    members: dict[str, Any] = {"family": "example", **changes}
    if build is not None:
        members["open"] = lambda self, model, side: build(model)
    return type("Mine", (example.ExampleTower,), members)()


def declaring(**wrong: Any) -> Any:
    """An adapter whose tower has a wrong configuration."""

    class Wrong(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            for name, value in wrong.items():
                object.__setattr__(self._cfg, name, value)
            super().setup()

    return adapter(Wrong)


def refused(mine: Any, words: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(TowerCheckError, match=words):
        check_adapter(mine, example.ExampleEncoder().eval(), "vision")


def test_the_right_adapter_passes() -> None:
    torch.manual_seed(0)
    check_adapter(adapter(), example.ExampleEncoder().eval(), "vision")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("d_mlp", 32, "d_mlp = 32, as declared, but found 64"),
        ("n_ctx", 5, "n_ctx = 5, .* found 4 positions"),
        ("n_heads", 4, "n_heads = 4, as declared, but found 2 heads"),
        ("d_head", 8, "d_head = 8"),
        ("n_layers", 3, "n_layers = 3, as declared, but found 2 blocks"),
        ("d_embed", 16, "d_embed = 16, .* found 32 entries"),
    ],
)
def test_a_wrong_size_in_the_configuration_is_refused(name: str, value: int, words: str) -> None:
    refused(declaring(**{name: value}), words)


@pytest.mark.parametrize(
    ("heads", "d_head", "words"),
    [(4, 8, "n_heads"), (1, 16, "n_heads"), (2, 8, "d_head")],
)
def test_wrong_heads_of_the_attention_are_refused_without_a_traceback_of_einsum(
    heads: int, d_head: int, words: str
) -> None:
    class Wrong(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            for block in self.blocks:
                block.attn = PackedAttention(block.attn.stock, d_model=32, n_heads=heads, d_head=d_head)
            object.__setattr__(self._cfg, "n_heads", heads)
            object.__setattr__(self._cfg, "d_head", d_head)
            super().setup()

    refused(adapter(Wrong), rf"{words}.*Fix: correct .*{words}")


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0)])
def test_swapped_projections_are_refused(order: tuple[int, int, int]) -> None:
    class Swapped(PackedAttention):
        @property
        def qkv(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
            right = super().qkv
            return tuple(right[i] for i in order)

    class Wrong(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            for block in self.blocks:
                block.attn = Swapped(block.attn.stock, d_model=32, n_heads=2, d_head=16)
            super().setup()

    refused(adapter(Wrong), "of queries, of keys and of values, in this order")


@pytest.mark.parametrize("n", [1, 2])
def test_a_wrong_number_of_leading_positions_is_refused(n: int) -> None:
    class Wrong(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            self.n_special = n
            super().setup()

    refused(adapter(Wrong), f"n_special = {n} positions before the patches, but found 0 leading positions")


def test_too_few_leading_positions_are_refused() -> None:
    model = tiny_model("clip", vision={"layers": 1})
    tower = OpenClipTower().open(model, "vision")
    tower.n_special = 0
    with pytest.raises(TowerCheckError, match=r"n_special = 0 .* found 1 leading positions"):
        check_tower(tower)


def test_an_adapter_that_opens_everything_is_refused() -> None:
    refused(adapter(opens=lambda self, model, side: True), "False for a model of another class, but found True")
    refused(adapter(opens=lambda self, model, side: False), "an adapter that opens the model")


@pytest.mark.parametrize("family", [None, ""])
def test_an_adapter_without_a_family_is_refused(family: str | None) -> None:
    refused(adapter(family=family), r"class attribute Mine.family")


def test_a_tower_that_is_not_finished_is_refused_in_words() -> None:
    class WithoutSetup(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            return

    class WithoutPooled(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            del self.hook_pooled
            super().setup()

    class WithoutPool(example.HookedExample):  # type: ignore[misc]
        pool = example.HookedVisionTower.pool

    class Failing(example.HookedExample):  # type: ignore[misc]
        def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
            return self.ln_last(stream).mean(1)

    refused(adapter(WithoutSetup), r"without hook names. Fix: call self.setup\(\) at the end of its __init__")
    refused(adapter(WithoutPooled), r"without hook_pooled. Fix: add self.hook_pooled = hook_point")
    refused(adapter(WithoutPool), r"a tower from Mine.open, but found TypeError: .*pool")
    refused(adapter(Failing), "a forward pass without an error, but found AttributeError: .*ln_last")
    refused(adapter(open=lambda self, model, side: model), "a HookedTower from Mine.open")


def test_opening_refuses_an_unfinished_tower_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutSetup(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            return

    class WrongHeads(example.HookedExample):  # type: ignore[misc]
        def setup(self) -> None:
            for block in self.blocks:
                block.attn = PackedAttention(block.attn.stock, d_model=32, n_heads=1, d_head=16)
            super().setup()

    model = example.ExampleEncoder().eval()
    for build, words in (
        (WithoutSetup, r"self.setup\(\)"),
        (WrongHeads, "correct n_heads"),
        (lambda m: m, "HookedTower"),
    ):
        made = [(None, adapter(build))]  # type: ignore[arg-type]
        monkeypatch.setattr(registry, "made", lambda group, contract, made=made: made if group == "towers" else [])
        with pytest.raises(InputError, match=words):
            open_tower(model, "vision")


class Sequence(nn.Module):
    """A text encoder with 8 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(20, 32)
        self.place = nn.Parameter(torch.randn(8, 32))
        self.blocks = nn.ModuleList(example.ExampleBlock() for _ in range(1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token_embedding(tokens) + self.place[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x[:, -1]


class HookedSequence(HookedTextTower):
    """The tower of `Sequence`, with a context length of one's choice."""

    def __init__(self, stock: Any, n_ctx: int) -> None:
        super().__init__(stock, TowerConfig("", "text", "mine", 32, 1, 2, 16, 64, n_ctx, 32, d_vocab=20))
        self.blocks = nn.ModuleList(example._block(b) for b in stock.blocks)
        self.hook_pooled = example.hook_point(32)
        self.setup()

    @property
    def input_dtype(self) -> torch.dtype:
        return self.stock.place.dtype

    def run_stock(self, inputs: Tensor) -> Tensor:
        return self.stock(inputs)

    def embed(self, inputs: Tensor) -> Any:
        x = self.hook_embed(self.stock.token_embedding(inputs))
        places = self.stock.place[: inputs.shape[1]].expand(len(x), -1, -1)
        return x + self.hook_pos_embed(places.clone()), {"attn_mask": None}

    def pool(self, stream: Tensor, inputs: Tensor) -> Tensor:
        return stream[:, -1]

    def project(self, pooled: Tensor) -> Tensor:
        return pooled

    def special_position(self, inputs: Tensor) -> Tensor:
        return torch.full((len(inputs),), inputs.shape[1] - 1)


def test_a_context_that_is_too_short_or_too_long_is_refused() -> None:
    torch.manual_seed(0)
    stock = Sequence().eval()
    check_tower(HookedSequence(stock, 8))
    with pytest.raises(TowerCheckError, match=r"n_ctx = 7, the largest number of token ids .* found that it takes 8"):
        check_tower(HookedSequence(stock, 7))
    with pytest.raises(TowerCheckError, match="a forward pass without an error, but found RuntimeError"):
        check_tower(HookedSequence(stock, 9))
