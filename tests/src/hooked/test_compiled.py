"""Reading through torch.compile: the same activations to rounding, one graph, and nothing of it in the user's tower."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from cliplens.errors import InputError, UnknownNameError
from cliplens.hooked import CompiledReading, HookedCLIP
from support.tiny import TinyTokenizer

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("gcc") and not shutil.which("clang"), reason="torch.compile needs a C compiler"
    ),
    pytest.mark.usefixtures("unchecked_shapes"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
HOOKS = {
    "text": ["blocks.0.hook_resid_mid", "blocks.0.mlp.hook_post"],
    "vision": ["hook_embedding", "blocks.0.attn.hook_z", "blocks.1.hook_resid_post"],
}


@pytest.fixture
def inputs(clip: HookedCLIP) -> Callable[[str, int], Tensor]:
    def made(side: str, count: int) -> Tensor:
        torch.manual_seed(count)
        if side == "text":
            return TinyTokenizer()(["abcdefg"[i % 5 :] for i in range(count)])
        return torch.randn(count, 3, *clip.vision.cfg.image_size)

    return made


@pytest.mark.parametrize("side", [pytest.param("vision", marks=pytest.mark.slow), "text"])
def test_compiled_activations_equal_those_of_read(clip: HookedCLIP, side: str, inputs) -> None:
    tower, hooks = clip.towers[side], HOOKS[side]
    counters.clear()
    read = CompiledReading(clip.model, tower, side, hooks, forward_batch=8)
    with torch.no_grad():
        found = {n: read(inputs(side, n)) for n in (8, 3, 1, 5, 7)}
        for n, acts in found.items():
            stock = tower.read(inputs(side, n), hooks)
            assert list(acts) == hooks
            for hook in hooks:
                torch.testing.assert_close(acts[hook], stock[hook], rtol=1e-4, atol=2e-5)
        again = read(inputs(side, 8))
    assert all(torch.equal(again[h], found[8][h]) for h in hooks)
    assert counters["stats"]["unique_graphs"] == counters["aot_autograd"]["total"] == 1
    assert not counters["graph_break"]
    assert tower.is_unhooked()


def test_bad_names_and_large_batches_are_errors(clip: HookedCLIP, inputs) -> None:
    with pytest.raises(UnknownNameError, match="nearest"):
        CompiledReading(clip.model, clip.text, "text", ["blocks.0.hook_resid_mit"], 4)
    read = CompiledReading(clip.model, clip.text, "text", HOOKS["text"], forward_batch=4)
    with pytest.raises(InputError, match=r"Expected at most 4 inputs .* found 5 inputs, no hooks\. Fix: remove"):
        read(inputs("text", 5))
    hooked = clip.text.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x)])
    with hooked, pytest.raises(InputError, match=r"found 4 inputs, hooks or dictionaries in place"):
        read(inputs("text", 4))


def test_a_tower_that_cannot_be_compiled_is_named(clip: HookedCLIP, inputs, monkeypatch) -> None:
    read = CompiledReading(clip.model, clip.text, "text", HOOKS["text"], forward_batch=4)

    def breaks(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x

    read._run = torch.compile(breaks, fullgraph=True)
    with pytest.raises(
        InputError, match=r"Expected a .* tower that torch.compile can compile in one graph.*read without"
    ):
        read(inputs("text", 4))
