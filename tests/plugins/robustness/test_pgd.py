"""PGD on models whose answer is known: the ball, the range, the closed form, the best iterate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cliplens.errors import InputError
from cliplens_plugins.robustness import Budget, equal_noise, pgd, random_squares
from cliplens_plugins.robustness.pgd import project


def linear(weight: Tensor):  # type: ignore[no-untyped-def]
    """An objective that is a sum of weighted pixels."""

    def objective(pixels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = (pixels * weight.to(pixels)).sum((1, 2, 3))
        return value, value

    return objective


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 3.0, 8.0]), st.booleans())
def test_on_a_linear_model_it_equals_the_closed_form(seed: int, levels: float, start: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(3, 3, 4, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    eps = levels / 255
    found = pgd(linear(weight), clean, Budget(eps, steps=20, random_start=start), seed=seed)
    wanted = (clean + eps * weight.sign()).clamp(0, 1)
    assert torch.allclose(found.pixels, wanted, atol=1e-12)
    assert torch.allclose(found.value, (wanted * weight).sum((1, 2, 3)), atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.3), st.integers(1, 4), st.integers(1, 3))
def test_it_stays_in_the_ball_and_in_the_range(seed: int, eps: float, steps: int, restarts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(2, 3, 3, 3, generator=generator)

    def rugged(pixels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.sin(40 * pixels).sum((1, 2, 3))
        return value, value

    budget = Budget(eps, steps, 0.05, restarts)
    for found in (pgd(rugged, clean, budget, seed=seed), random_squares(rugged, clean, eps, queries=9, seed=seed)):
        assert ((found.pixels - clean).abs() <= eps + 1e-6).all()
        assert ((found.pixels >= 0) & (found.pixels <= 1)).all()
        assert (found.value >= rugged(clean, torch.arange(2))[1] - 1e-6).all()  # the clean picture is a candidate


def test_the_best_iterate_is_kept_and_not_the_last() -> None:
    """The gradient leads past a peak: the last iterate is worse than one on the way."""

    def peaked(pixels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        aim = pixels.sum((1, 2, 3))
        return aim, -(pixels - 0.52).abs().sum((1, 2, 3))

    clean = torch.full((1, 3, 1, 1), 0.5)
    found = pgd(peaked, clean, Budget(0.2, 20, 0.01, random_start=False))
    assert torch.allclose(found.pixels, torch.full_like(clean, 0.52), atol=1e-6)


def test_more_starts_and_more_steps_are_never_worse() -> None:
    def rugged(pixels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.sin(60 * pixels).sum((1, 2, 3))
        return value, value

    clean = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    values = [pgd(rugged, clean, Budget(0.05, steps, 0.01, starts)).value for steps, starts in ((2, 1), (8, 1), (8, 3))]
    assert (values[1] >= values[0]).all()
    assert (values[2] >= values[1]).all()


def test_a_picture_is_attacked_the_same_way_in_any_batch() -> None:
    clean = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    budget = Budget(0.05, steps=1, step=0.01)
    whole = pgd(linear(weight), clean, budget, batch=5)
    assert torch.equal(whole.pixels, pgd(linear(weight), clean, budget, batch=2).pixels)
    assert not torch.equal(whole.pixels, pgd(linear(weight), clean, budget, seed=1).pixels)


def test_noise_of_equal_norm_has_that_norm() -> None:
    clean = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    attacked = project(clean + torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)), clean, 0.03)
    noise = equal_noise(attacked, clean) - clean
    assert torch.allclose(noise.abs(), (attacked - clean).abs(), atol=1e-6)
    assert not torch.equal(noise.sign(), (attacked - clean).sign())


@pytest.mark.parametrize(
    "wrong",
    [{"eps": -0.1}, {"eps": 4.0}, {"eps": 0.1, "steps": 0}, {"eps": 0.1, "restarts": 0}, {"eps": 0.1, "step": 0.0}],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="4/255 is 4 levels"):
        Budget(**wrong)  # type: ignore[arg-type]


def test_budgets_are_those_of_the_literature() -> None:
    assert Budget.strong(4 / 255) == Budget(4 / 255, 100, 1 / 255, 5)
    assert Budget.one_step(4 / 255) == Budget(4 / 255, 1, 4 / 255, 1, random_start=False)
    assert Budget(4 / 255).step == 1 / 255
