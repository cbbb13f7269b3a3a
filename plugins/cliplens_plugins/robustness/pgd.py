"""Projected gradient descent on pixels (Madry et al., 1706.06083), with the best iterate kept.

Other libraries were tried first. All of them take `PixelClassifier`, none fits the other losses here:

- foolbox 3.3.4 accepts the towers and another loss (by a subclass), but returns the last iterate, not the best.
- torchattacks 3.5.1 has its losses inside its attacks, so features and classes of latents cannot be attacked with it;
  it asks for requests 2.25, which the libraries of this project exclude.
- autoattack is on no package index.

So the loop is here, and foolbox (extra `robustness`) is the second opinion on it: see `checks`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.errors import InputError
from cliplens.progress import Bar
from cliplens_plugins.robustness.pixels import Pixels

LEVEL = 1 / 255
Scored = tuple[Float[Tensor, " sample"], Float[Tensor, " sample"]]
Objective = Callable[[Pixels, Int64[Tensor, " sample"]], Scored]
"""From pixels and the rows they belong to, to what is maximised, and to what decides which iterate is best."""


@dataclass(frozen=True)
class Budget:
    """How far an attack may go, in fractions of the range of a pixel.

    The default takes 10 steps of 1/255, as evaluations in training do (FARE, TeCoA). Claims of robustness need
    `Budget.strong`.
    """

    eps: float
    """Largest change of any pixel: 4/255 is 4 levels."""
    steps: int = 10
    step: float = LEVEL
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1 or self.steps < 1 or self.restarts < 1 or self.step <= 0:
            raise InputError(
                expected="0 <= eps <= 1, and at least one step and one start",
                found=f"eps {self.eps:g}, {self.steps} steps of {self.step:g}, {self.restarts} starts",
                fix="give eps in fractions: 4/255 is 4 levels",
            )

    @classmethod
    def strong(cls, eps: float) -> "Budget":
        """Return the budget for claims: 100 steps of eps/4, five starts."""
        return cls(eps, 100, max(eps / 4, 1e-9), 5)

    @classmethod
    def one_step(cls, eps: float) -> "Budget":
        """Return one step of the whole size from the picture itself (FGSM, 1412.6572)."""
        return cls(eps, 1, max(eps, 1e-9), 1, random_start=False)


@dataclass(frozen=True)
class Attacked:
    """The best iterate of each picture."""

    pixels: Pixels
    value: Float[Tensor, " sample"]
    """Value by which the best iterate was chosen, at that iterate."""


def pgd(
    objective: Objective,
    clean: Pixels,
    budget: Budget,
    *,
    seed: int = 0,
    batch: int = 64,
    progress: str | None = None,
) -> Attacked:
    """Return pixels within eps of the clean ones, and within [0, 1], that maximise an objective.

    x <- clip01(proj_eps(x + step * sign of the gradient)). The clean picture is a candidate too, so no attack is worse
    than none. The start of a picture depends on the seed and its row alone, not on the batch.

    Args:
        objective: what to maximise; see `Objective`.
        clean: pixels in [0, 1].
        budget: eps, steps, starts.
        seed: seed of the starts.
        batch: pictures per forward pass.
        progress: name on a progress bar; None shows none.

    Source: Madry et al., arXiv 1706.06083.

    >>> weight = torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1)
    >>> found = pgd(lambda x, rows: ((x * weight).sum((1, 2, 3)),) * 2, torch.full((1, 3, 1, 1), 0.5), Budget(0.02))
    >>> [round(v, 3) for v in found.pixels.flatten().tolist()]
    [0.52, 0.48, 0.52]
    """
    rows = torch.arange(len(clean))
    done = []
    for part in Bar(rows.split(batch), desc=progress, disable=progress is None, leave=False):
        done.append(_best(objective, clean[part], part, budget, seed))
    return Attacked(torch.cat([d.pixels for d in done]), torch.cat([d.value for d in done]))


def _best(objective: Objective, clean: Pixels, rows: Int64[Tensor, " sample"], budget: Budget, seed: int) -> Attacked:
    with torch.no_grad():
        value = objective(clean, rows)[1].detach().clone().to(clean.device)
    best = Attacked(clean.clone(), value)
    for restart in range(budget.restarts):
        pixels = _start(clean, rows, budget.eps, seed + restart) if budget.random_start else clean.clone()
        for step in range(budget.steps + 1):
            with torch.enable_grad():
                pixels = pixels.detach().requires_grad_(True)
                aim, value = objective(pixels, rows)
            best = _better(best, pixels.detach(), value.detach())
            if step < budget.steps:
                (gradient,) = torch.autograd.grad(aim.sum(), pixels)
                pixels = project(pixels.detach() + budget.step * gradient.sign(), clean, budget.eps)
    return best


def project(pixels: Pixels, clean: Pixels, eps: float) -> Pixels:
    """Return the nearest pixels within eps of the clean ones and within [0, 1]."""
    return torch.minimum(torch.maximum(pixels, clean - eps), clean + eps).clamp(0, 1)


def _start(clean: Pixels, rows: Int64[Tensor, " sample"], eps: float, seed: int) -> Pixels:
    drawn = []
    for row in rows.tolist():
        generator = torch.Generator().manual_seed(1_000_003 * seed + row)
        drawn.append(torch.rand(clean.shape[1:], generator=generator) * 2 - 1)
    return project(clean + eps * torch.stack(drawn).to(clean), clean, eps)


def _better(best: Attacked, pixels: Pixels, value: Float[Tensor, " sample"]) -> Attacked:
    value = value.to(best.value.device)  # a model on a GPU scores pixels that stay where they are
    wins = value > best.value
    return replace(
        best,
        pixels=torch.where(wins[:, None, None, None], pixels, best.pixels),
        value=torch.where(wins, value, best.value),
    )


def equal_noise(attacked: Pixels, clean: Pixels, *, seed: int = 0) -> Pixels:
    """Return pictures with noise as large as the attack: its size at every pixel, each sign drawn at random.

    Where [0, 1] cuts the noise, its norm is slightly smaller.

    >>> clean = torch.full((1, 3, 2, 2), 0.5)
    >>> bool(((equal_noise(clean + 0.1, clean) - clean).abs() - 0.1).abs().max() < 1e-6)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, clean.shape, generator=generator).to(clean) * 2 - 1
    return (clean + (attacked - clean).abs() * signs).clamp(0, 1)


def random_squares(objective: Objective, clean: Pixels, eps: float, *, queries: int = 200, seed: int = 0) -> Attacked:
    """Return the best of random changes of squares, without gradients.

    It is Square Attack (1912.00049) with a linear instead of a stepwise schedule of the size: vertical stripes first,
    then at each query a square gets one sign of eps per channel, kept where the objective grows.

    Args:
        objective: what to maximise; its second value decides.
        clean: pixels in [0, 1].
        eps: largest change of any pixel.
        queries: calls of the model per picture.
        seed: seed of everything random.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(clean))
    height, width = clean.shape[2:]

    def signs(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(clean)

    with torch.no_grad():
        best = Attacked(clean.clone(), objective(clean, rows)[1].to(clean.device))
        start = project(clean + eps * signs(len(clean), 3, 1, width), clean, eps)
        best = _better(best, start, objective(start, rows)[1])
        for query in range(queries):
            side = max(1, round(min(height, width) * 0.5 * (1 - query / queries)))
            top, left = (int(torch.randint(0, n - side + 1, (), generator=generator)) for n in (height, width))
            tried = best.pixels.clone()
            square = (..., slice(top, top + side), slice(left, left + side))
            tried[square] = project(clean[square] + eps * signs(len(clean), 3, 1, 1), clean[square], eps)
            best = _better(best, tried, objective(tried, rows)[1])
    return best
