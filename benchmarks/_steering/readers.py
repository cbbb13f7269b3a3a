"""Read attributes with a linear probe on embeddings, or with the judge network on generated pictures."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from _steering.data import VISIBLE, Sample, said
from cliplens.sites import Modality
from cliplens.world import FACTORS
from cliplens_plugins.generators import WorldGenerator, load_factor_reader
from cliplens_plugins.steering.effects import Reading

Reader = Callable[[Tensor, Modality], Reading]


class Probe:
    """Linear probes of embeddings, one per attribute and modality: multinomial logistic regression."""

    def __init__(self, sample: Sample) -> None:
        self.weights = {m: {a: self._fitted(sample, m, a) for a in said(m)} for m in ("image", "text")}

    def __call__(self, acts: Tensor, modality: Modality) -> Reading:
        unit = torch.nn.functional.normalize(acts, dim=-1)
        rows = torch.cat([unit, torch.ones(len(unit), 1)], dim=1)
        return {a: (rows @ w).argmax(1).numpy() for a, w in self.weights[modality].items()}

    def _fitted(self, sample: Sample, modality: Modality, attribute: str) -> Tensor:
        acts = sample.of(modality)
        rows = torch.cat([acts, torch.ones(len(acts), 1)], dim=1)
        labels = torch.from_numpy(sample.scenes[attribute])
        weights = torch.zeros(rows.shape[1], len(FACTORS[attribute].values), requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(rows @ weights, labels) + 1e-5 * weights.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return weights.detach()


def picture_reader(judge_file: Path) -> Reader:
    judge, generator = load_factor_reader(judge_file), WorldGenerator()

    def read(acts: Tensor, modality: Modality) -> Reading:
        drawn = generator.generate(acts, seed=5)
        found = judge.read(drawn)
        return {a: found[a] for a in VISIBLE}

    return read
