"""Signs of a masked gradient (Athalye et al., 1802.00420): an attack that fails them says nothing about robustness."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens_plugins.robustness.pgd import Budget, Objective, equal_noise, pgd, random_squares
from cliplens_plugins.robustness.pixels import Pixels

LARGE = 0.5
SAME = 0.05
"""Difference of accuracies that counts as none when steps or starts are added."""
Row = dict[str, Any]


def masked_gradient_checks(
    objective: Objective,
    clean: Pixels,
    budget: Budget,
    *,
    transferred: float | None = None,
    foolbox: Callable[[Pixels, Budget], Pixels] | None = None,
    thorough: bool = True,
    seed: int = 0,
    batch: int = 64,
) -> list[Row]:
    """Return one row per check: what should hold, the two accuracies compared, and whether it holds.

    Accuracy is the share of pictures whose kept value is below 0, so the objective must keep margins.

    Args:
        objective: margin of zero-shot classification.
        clean: pictures to attack.
        budget: the budget of the study.
        transferred: accuracy of this model on pictures that attack another model, with the same eps.
        foolbox: another library's attack with the same ball, if it is installed.
        thorough: False leaves out the checks that cost most: more steps, more starts, random squares.
        seed: seed of everything random.
        batch: pictures per forward pass.
    """

    def accuracy(value: Float[Tensor, " sample"]) -> float:
        return float((value < 0).double().mean())

    def attacked(of: Budget) -> float:
        return accuracy(pgd(objective, clean, of, seed=seed, batch=batch).value)

    def kept(pixels: Pixels) -> float:
        rows = torch.arange(len(clean)).split(batch)
        with torch.no_grad():
            return accuracy(torch.cat([objective(pixels[r], r)[1] for r in rows]))

    own = pgd(objective, clean, budget, seed=seed, batch=batch)
    here = accuracy(own.value)
    large = Budget(LARGE, max(20, budget.steps), LARGE / 4)
    rows = [
        _row("iterated is at least as strong as one step", here, attacked(Budget.one_step(budget.eps)), "<="),
        _row(f"nothing survives eps {255 * LARGE:.0f}", attacked(large), 0.0, "="),
        _row("noise of equal norm is far weaker", here, kept(equal_noise(own.pixels, clean, seed=seed)), "<"),
    ]
    if thorough:
        longer = replace(budget, steps=4 * budget.steps, step=max(budget.eps / 4, 1e-9))
        squares = random_squares(objective, clean, budget.eps, queries=10 * budget.steps, seed=seed)
        rows += [
            _row("four times the steps change little", attacked(longer), here, "~"),
            _row("three starts change little", attacked(replace(budget, restarts=3)), here, "~"),
            _row("random squares (no gradient) are weaker", here, accuracy(squares.value), "<="),
        ]
    if transferred is not None:
        rows.append(_row("an attack on another model is weaker", here, transferred, "<="))
    if foolbox is not None:
        rows.append(_row("foolbox's PGD is not stronger", here, kept(foolbox(clean, budget)), "<="))
    return rows


def _row(check: str, left: float, right: float, relation: str) -> Row:
    slack = 1e-9
    holds = {
        "<=": left <= right + slack,
        "=": left <= right + slack,
        "~": abs(left - right) <= SAME + slack,
        "<": left < right - SAME,
    }[relation]
    return {"check": check, "accuracy": left, "relation": relation, "compared with": right, "holds": holds}


def foolbox_pgd(
    model: torch.nn.Module, labels: Int[Tensor, " sample"], *, seed: int = 0
) -> Callable[[Pixels, Budget], Pixels] | None:
    """Return PGD of foolbox on a model of pixels, or None where foolbox is not installed (extra `robustness`)."""
    try:
        import foolbox
    except ImportError:
        return None

    def attack(clean: Pixels, budget: Budget) -> Pixels:
        device = next(model.buffers()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
            own = foolbox.attacks.LinfPGD(steps=budget.steps, abs_stepsize=budget.step)
            found = own(wrapped, clean.to(device), labels.to(device), epsilons=budget.eps)[1]
        return found.to(clean)

    return attack
