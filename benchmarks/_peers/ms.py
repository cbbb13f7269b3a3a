"""Score the monosemanticity (MS) of every latent on the pictures of the embedded world with one peer.

Every peer gets the same activations [picture, latent] and embeddings of the pictures. The definition is that of
Pach et al. (arXiv 2504.02821), computed here in float64 over all pairs of pictures.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _case import Options, arrays, main, on_cpu, seconds, source
from torch import Tensor


def definition(acts: Tensor, judged: Tensor) -> Tensor:
    """Return sum w_i w_j cos(i, j) / sum w_i w_j over pairs, w scaled from the minimum to the maximum; float64."""
    acts, judged = acts.double(), torch.nn.functional.normalize(judged.double(), dim=1)
    weights = (acts - acts.amin(0)) / (acts.amax(0) - acts.amin(0))
    near = (judged @ judged.T).fill_diagonal_(0)
    every = torch.ones_like(near).fill_diagonal_(0)
    return (weights * (near @ weights)).sum(0) / (weights * (every @ weights)).sum(0)


def found(took: float, scores: Tensor, expected: Tensor) -> dict[str, Any]:
    """Return seconds, mean score and the largest difference from the definition."""
    known = ~expected.isnan()
    apart = (scores.double()[known] - expected[known]).abs().nan_to_num(float("inf")).max()
    return {"seconds": took, "mean": float(scores[known].double().mean()), "largest_difference": float(apart)}


def cliplens(asked: Options) -> dict[str, Any]:
    """Our one-pass form."""
    from cliplens_plugins.monosemanticity import ms

    given = arrays(asked, "ms")
    kept: list[Tensor] = []
    took = seconds(lambda: kept.append(ms(given["acts"], given["judged"])))
    return found(took, kept[0], definition(**given))


def sae_for_vlm(asked: Options) -> dict[str, Any]:
    """The published `metric.py`, unchanged but for `.cuda()`, which does nothing here."""
    on_cpu()
    given = arrays(asked, "ms")
    metric = source(asked, "metric")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        place = Path(folder)
        torch.save(given["judged"], place / "judged.pt")
        (place / "acts").mkdir()
        torch.save(given["acts"], place / "acts" / "acts_part1.pt")
        options = SimpleNamespace(
            embeddings_path=place / "judged.pt", activations_dir=str(place / "acts"), output_subdir="out", device="cpu"
        )
        took = seconds(lambda: metric.main(options))
        scores = torch.load(place / "acts" / "out" / "all_neurons_scores.pth")
    return found(took, scores, definition(**given))


def visaebench(asked: Options) -> dict[str, Any]:
    """ViSAEBench's M5, which scores the 16 strongest pictures of each latent by design."""
    from visaebench.metrics.concept_detection.monosemanticity import MonosemanticityScore

    given = arrays(asked, "ms")
    sae = SimpleNamespace(encode=lambda x: x)
    judge = SimpleNamespace(extract_activations=lambda images, layer: given["judged"][images][:, None])
    metric = MonosemanticityScore(max_features=10**9)
    kept: list[Any] = []
    took = seconds(
        lambda: kept.append(
            metric.compute(
                sae, given["acts"][:, None], device="cpu", images=range(len(given["acts"])), evaluator_backbone=judge
            )
        )
    )
    scores, expected = torch.tensor(kept[0].metadata["ms_distribution"]), definition(**given)
    alive = (given["acts"].amax(0) > 0).nonzero().ravel()
    if len(scores) != len(alive):  # latents of one picture have no pair, and are left out
        alive = alive[((given["acts"][:, alive] > 0).sum(0) > 1)]
    assert len(scores) == len(alive), f"{len(scores)} scores of {len(alive)} latents"
    return found(took, scores, expected[alive])


PEERS = (cliplens, sae_for_vlm, visaebench)

if __name__ == "__main__":
    main({f.__name__: f for f in PEERS}, __doc__)
