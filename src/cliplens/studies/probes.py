"""Probes: measure how well a linear and a non-linear classifier can still read an attribute from embeddings."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cliplens.statistics import auroc

Predict = Callable[[Float[Tensor, "row d"]], Float[Tensor, "row class"]]
_WIDTH = 64


@dataclass(frozen=True)
class Scaled:
    """A network that standardises its inputs first."""

    network: nn.Module
    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    @torch.no_grad()
    def __call__(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row class"]:
        """Return the logits of each class."""
        found: Tensor = self.network((rows.double() - self.mean) / self.deviation)
        return found


def linear_probe(rows: Float[Tensor, "row d"], labels: Int[Tensor, " row"], *, decay: float = 1e-3) -> Scaled:
    """Fit a logistic regression of the labels on standardised rows; `decay` is the factor of the L2 penalty."""
    mean, deviation, given = _standardised(rows)
    network = nn.Linear(rows.shape[1], int(labels.max()) + 1, dtype=torch.float64)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    with torch.enable_grad():
        optimiser = torch.optim.LBFGS(network.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(given), labels) + decay * network.weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    return Scaled(network.requires_grad_(False), mean, deviation)


def mlp_probe(rows: Float[Tensor, "row d"], labels: Int[Tensor, " row"], *, steps: int = 200, seed: int = 0) -> Scaled:
    """Fit a network with one hidden layer of 64 units, with AdamW on full batches (rate .01, decay .01)."""
    mean, deviation, given = _standardised(rows)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        classes = int(labels.max()) + 1
        network = nn.Sequential(nn.Linear(rows.shape[1], _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, classes)).double()
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(given), labels).backward()
            optimiser.step()
    return Scaled(network.requires_grad_(False), mean, deviation)


def probe_auc(logits: Float[Tensor, "row class"], labels: Int[np.ndarray, " row"]) -> float:
    """Return the AUROC on held-out rows: each class against the others, averaged over classes. Chance gives 0.5."""
    scores = logits.softmax(1).cpu().numpy() if logits.shape[1] > 2 else (logits - logits[:, :1]).cpu().numpy()
    classes = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    return float(np.mean([auroc(scores[labels == c, c], scores[labels != c, c]) for c in classes]))


def _standardised(rows: Float[Tensor, "row d"]) -> tuple[Tensor, Tensor, Tensor]:
    given = rows.double()
    # A direction that an edit removed contains only rounding noise, which must not be scaled up.
    mean, deviation = given.mean(0), given.std(0).clamp_min(1e-6)
    return mean, deviation, (given - mean) / deviation
