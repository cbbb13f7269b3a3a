"""The conformance kit finds the faults it is there to find."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cliplens import testing
from cliplens.hooked import HookedTower, borrow
from cliplens.testing import TowerCheckError, check_tower
from cliplens_hooks.towers.open_clip import OpenClipTower
from support.tiny import tiny_images, tiny_model, tiny_tokens


@pytest.fixture
def tower() -> HookedTower:
    return OpenClipTower().open(tiny_model("clip", vision={"layers": 2}), "vision")


def spoil_residual(tower: Any) -> None:
    block = tower.blocks[0]
    forward = block.attn.forward
    block.attn.forward = lambda x, context: forward(x, context) * (1.0 if block.attn.is_unhooked() else 1.01)


def spoil_hook(tower: Any) -> None:
    tower.hook_never = type(tower.hook_embed)()
    tower.hook_never.width = 1
    tower.setup()


def spoil_stop(tower: Any) -> None:
    through = tower._through_blocks
    tower._through_blocks = lambda stream, context, stop: through(stream, context, stop and stop - 1)


def spoil_gradient(tower: Any) -> None:
    mlp = tower.blocks[1].mlp
    act = mlp.act
    borrow(mlp, act=lambda x: act(x.detach()))


def spoil_width(tower: Any) -> None:
    tower.hook_dict["blocks.0.attn.hook_z"].width = 7


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_residual, "output with every hook active"),
        (spoil_hook, "every hook fires"),
        (spoil_stop, "stop_at_layer=1"),
        (spoil_gradient, "gradient"),
        (spoil_width, "rows of width 7"),
    ],
)
def test_a_failed_check_names_what_differs(tower: HookedTower, spoil: Any, words: str) -> None:
    spoil(tower)
    with pytest.raises(TowerCheckError, match=words):
        check_tower(tower, tiny_images(2))


def test_output_is_compared_with_the_stock_it_is_given(tower: HookedTower) -> None:
    with pytest.raises(TowerCheckError, match="bitwise equal"):
        check_tower(tower, tiny_images(2), stock=lambda x: tower.stock(x) + 1)


def test_an_edit_that_later_steps_do_not_read_is_found(tower: HookedTower) -> None:
    class Rereads(nn.Module):
        """What a bridge does that lets the MLP read the stream from before the hook."""

    block: Any = tower.blocks[0]

    def forward(x: Tensor, context: Any) -> Tensor:
        x = block.hook_resid_pre(x)
        mid = x + block.hook_attn_out(block.attn(block.ln1(x), context))
        seen = block.hook_resid_mid(mid)
        return block.hook_resid_post(mid + block.hook_mlp_out(block.mlp(block.ln2(seen))))

    block.forward = forward
    with pytest.raises(TowerCheckError, match="hook_resid_mid"):
        testing.writes_are_true_edits(tower, tiny_images(2))


def test_text_towers_make_their_own_inputs() -> None:
    tower = OpenClipTower().open(tiny_model("clip", text={"layers": 1}), "text")
    assert testing.example_inputs(tower).shape == (2, 8)
    testing.every_hook_fires(tower, tiny_tokens(2))
    assert testing.fingerprint(tower.stock) == testing.fingerprint(tower.stock)
    assert torch.equal(testing.example_inputs(tower), testing.example_inputs(tower))
