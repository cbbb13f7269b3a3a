"""Compute the explained variance of one dictionary on the same rows with one peer, where the rows have an offset.

The rows are centred, then the same number is added to all coordinates, to the rows and to the dictionary's decoder bias
alike. The errors and the variance about the mean are unchanged, so the explained variance should be.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from _case import Options, arrays, main
from torch import Tensor

OFFSETS = (0.0, 0.05, 0.5)
Score = Callable[[Any, Tensor], float]
"""Function of a dictionary and rows that returns the explained variance."""


def scored(asked: Options, score: Score) -> dict[str, Any]:
    """Return the explained variance at every offset, and by the definition in float64."""
    given = arrays(asked, "dictionary")
    found, defined = [], []
    for offset in OFFSETS:
        sae = dictionary(given, offset, int(given["k"]))
        x = given["rows"] + offset
        found.append(score(sae, x))
        error = (x.double() - sae.decode(sae.encode(x)).double()).square().sum()
        defined.append(float(1 - error / (x.double() - x.double().mean(0)).square().sum()))
    return {"offsets": OFFSETS, "explained_variance": found, "definition": defined}


def dictionary(given: dict[str, Tensor], offset: float, k: int) -> Any:
    """Return a top-k dictionary moved by an offset, with ViSAEBench's `SAEInterface`."""
    bias = given["b_dec"] + offset

    def encode(x: Tensor) -> Tensor:
        before = (x - bias) @ given["W_enc"] + given["b_enc"]
        top = before.topk(k)
        return torch.zeros_like(before).scatter(1, top.indices, top.values.relu())

    return SimpleNamespace(encode=encode, decode=lambda codes: codes @ given["W_dec"] + bias)


def cliplens(asked: Options) -> dict[str, Any]:
    """Our metric."""
    from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
    from cliplens_plugins.fidelity import FidelityMetric

    def score(sae: Any, x: Tensor) -> float:
        ids = tuple(map(str, range(len(x))))
        codes = sae.encode(x)
        metric = FidelityMetric()
        metric.update(
            Batch(
                PairedActs(ids, x, None),
                PairedCodes(ids, SparseCodes.from_dense(codes), None),
                PairedActs(ids, sae.decode(codes), None),
                {},
            )
        )
        return float(metric.findings(None).figures["explained_variance"])

    return scored(asked, score)


def visaebench(asked: Options) -> dict[str, Any]:
    """1 - FVU."""
    from visaebench.metrics.reconstruction.fvu import FVU

    return scored(asked, lambda sae, x: float(1 - FVU().compute(sae, x, device="cpu").value))


def overcomplete(asked: Options) -> dict[str, Any]:
    """`r2_score`."""
    from overcomplete.metrics import r2_score

    return scored(asked, lambda sae, x: float(r2_score(x, sae.decode(sae.encode(x)))))


PEERS = (cliplens, visaebench, overcomplete)

if __name__ == "__main__":
    main({f.__name__: f for f in PEERS}, __doc__)
