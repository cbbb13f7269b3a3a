import pytest
import torch

from cliplens_plugins.generators.painter import Painter, PainterConfig, SceneLayout, _cells, _to_patches, _to_picture
from cliplens_plugins.generators.world import sample

SMALL = PainterConfig(width=16, layers=1, heads=2)


def inputs(n: int, config: PainterConfig = SMALL) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, SceneLayout]:
    made = torch.Generator().manual_seed(0)
    state = torch.randn(n, 3, config.side, config.side, generator=made)
    embedding = torch.randn(n, config.d_embed, generator=made)
    return state, torch.rand(n, generator=made), embedding, SceneLayout(torch.arange(n) % 4, torch.arange(n) % 3)


@pytest.mark.parametrize("patch", [6, 8, 12])
def test_a_picture_goes_in_and_one_comes_out(patch: int) -> None:
    painter = Painter(PainterConfig(patch=patch, width=16, layers=1, heads=2))
    state, *others = inputs(2)
    assert painter(state, *others).shape == state.shape


def test_patches_lie_where_they_were_taken() -> None:
    picture = inputs(2)[0]
    assert torch.equal(_to_picture(_to_patches(picture, 8), 8), picture)
    assert torch.equal(_to_patches(picture, 8)[0, 1].view(3, 8, 8), picture[0, :, :8, 8:16])


def test_rows_do_not_see_each_other() -> None:
    painter = Painter(SMALL).double()
    state, time, embedding, layout = inputs(4)
    all_of = painter(state.double(), time.double(), embedding.double(), layout)
    third = SceneLayout(layout.anchor[2:3], layout.tilt[2:3])
    one = painter(state[2:3].double(), time[2:3].double(), embedding[2:3].double(), third)
    assert torch.allclose(all_of[2:3], one, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_sampling_lands_on_what_the_network_believes(steps: int) -> None:
    """A network that always believes in one picture is led there exactly, from any noise."""

    class Certain(Painter):
        def forward(self, state: torch.Tensor, *_: object) -> torch.Tensor:
            return torch.full_like(state, 0.25)

    noise = inputs(2)[0]
    layout = SceneLayout(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    out = sample(Certain(SMALL), torch.randn(2, 64), noise, layout, steps=steps)
    assert torch.allclose(out, torch.full_like(out, 0.25), atol=1e-6)


def test_cells_are_counted_clockwise() -> None:
    cell, within = _cells(6)
    assert cell.view(6, 6)[::3, ::3].tolist() == [[0, 1], [3, 2]]
    assert within.view(6, 6)[:3, :3].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert torch.equal(within.view(6, 6)[:3, :3], within.view(6, 6)[3:, 3:])
