"""Measure every method with every metric, with intervals. Probes are fitted again after each change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens import tasks
from cliplens.statistics import auroc_interval
from cliplens.studies import linear_probe, mlp_probe, probe_auc
from cliplens_plugins.bias.data import BiasData, Utility
from cliplens_plugins.bias.methods import Method
from cliplens_plugins.bias.metrics import (
    accuracy_intervals,
    association,
    equalised_odds,
    max_skew,
    ndkl,
    parity_difference,
    ranking,
    worst_group_auc,
)

Row = dict[str, Any]
SKEW_AT = 500
DRAWS = 200
SENTENCE_DRAWS = 30
"""Number of bootstrap samples of sentences. Each sample ranks all images again."""
Interval = tuple[float, float, float]
_ACCURACIES = {"mean": "mean", "worst": "worst group", "gap": "gap"}


@dataclass(frozen=True)
class Measured:
    """The figures of one method. A figure of three numbers is a value with its 95 % interval: (value, low, high)."""

    method: Method
    figures: Row


def measure(data: BiasData, methods: Sequence[Method], *, draws: int = DRAWS, seed: int = 0) -> list[Measured]:
    """Return the figures of every method on the test images. Probes are fitted on the changed training images.

    Args:
        data: embeddings, labels and prompts.
        methods: methods fitted on the training images.
        draws: number of bootstrap samples of the sentences of each class, at most 30.
        seed: seed of the draws and of the probes.
    """
    return [Measured(method, _figures(data, method, draws, seed)) for method in methods]


def _figures(data: BiasData, method: Method, draws: int, seed: int) -> Row:
    image = method.images(data.image)
    sentences = torch.stack([method.texts(of) for of in data.prompts.target])
    return {
        **_zero_shot(data, image, sentences),
        **_trained(data, image),
        **_rankings(data, image, _queries(data, method, sentences), draws, seed),
        **_leakage(data, image, seed),
        **_words(data, method, sentences, seed),
        **_utility(data, method, image),
    }


def _prototypes(sentences: Float[Tensor, "target sentence d"]) -> Float[Tensor, "target d"]:
    return torch.nn.functional.normalize(sentences.mean(1), dim=-1)


def _queries(data: BiasData, method: Method, sentences: Tensor) -> Tensor:
    given = data.prompts.queries
    return sentences if given is None else torch.stack([method.texts(of) for of in given])


def _zero_shot(data: BiasData, image: Tensor, sentences: Tensor) -> Row:
    test = data.test
    scores = (image[torch.as_tensor(test)] @ _prototypes(sentences).T).cpu().numpy()
    predicted = scores.argmax(1)
    row = _accuracies("zero-shot", data, predicted)
    group, target = data.group[test], data.target[test]
    margins = {int(y): scores[:, y] - np.delete(scores, y, 1).max(1) for y in np.unique(target)}
    apart = [worst_group_auc(margin, target == y, group) for y, margin in margins.items()]
    row |= {
        "worst-group AUC": float(np.nanmin(apart)),
        "parity difference": parity_difference(predicted, group),
        "equalised odds": equalised_odds(predicted, target, group),
    }
    return row


def _trained(data: BiasData, image: Tensor) -> Row:
    """Return accuracies of a probe of the target, fitted on the changed training images, whose bias it inherits."""
    rows, labels = image[torch.as_tensor(data.train)], torch.as_tensor(data.target[data.train])
    predicted = linear_probe(rows, labels)(image[torch.as_tensor(data.test)]).argmax(1).cpu().numpy()
    return _accuracies("trained", data, predicted)


def _accuracies(name: str, data: BiasData, predicted: np.ndarray) -> Row:
    target, group = data.target[data.test], data.group[data.test]
    found = accuracy_intervals(predicted == target, target, group)
    return {f"{name} {figure}": found[short] for short, figure in _ACCURACIES.items()}


def _rankings(data: BiasData, image: Tensor, sentences: Tensor, draws: int, seed: int) -> Row:
    """Return the skew of images ranked by each target class: the mean over classes, with a bootstrap over sentences."""
    test = torch.as_tensor(data.test)
    group, n = data.group[data.test], len(data.group_names)
    k = min(SKEW_AT, max(1, len(group) // 4))
    rows = image[test]

    def skews(prototypes: Tensor) -> tuple[float, float, float]:
        orders = [ranking(scores) for scores in (rows @ prototypes.T).T.cpu().numpy()]
        means = [
            [max_skew(o, group, k, n_groups=n), max_skew(o, group, k, n_groups=n, reference="pool"),
             ndkl(o, group, n_groups=n)]
            for o in orders
        ]  # fmt: skip
        return tuple(np.mean(means, axis=0).tolist())

    found = skews(_prototypes(sentences))
    rng = np.random.default_rng(seed)
    count = sentences.shape[1]
    chosen = (rng.integers(0, count, count) for _ in range(min(draws, SENTENCE_DRAWS)))
    drawn = np.array([skews(_prototypes(sentences[:, torch.as_tensor(c)])) for c in chosen])
    names = (f"MaxSkew@{k}", f"MaxSkew@{k} (pool)", "NDKL")
    return {name: _interval(found[i], drawn[:, i]) for i, name in enumerate(names)}


def _leakage(data: BiasData, image: Tensor, seed: int) -> Row:
    """Return how well probes read the group from the changed images, and from the logits of a probe of the target."""
    train, test = torch.as_tensor(data.train), torch.as_tensor(data.test)
    of_train, labels = torch.as_tensor(data.group[data.train]), data.group[data.test]
    target = linear_probe(image[train], torch.as_tensor(data.target[data.train]))
    found = {
        "leakage, linear": probe_auc(linear_probe(image[train], of_train)(image[test]), labels),
        "leakage, MLP": probe_auc(mlp_probe(image[train], of_train, seed=seed)(image[test]), labels),
        "leakage, logits": probe_auc(linear_probe(target(image[train]), of_train)(target(image[test])), labels),
    }
    counts = int((labels == 0).sum()), int((labels != 0).sum())
    return {name: (value, *auroc_interval(value, *counts)) for name, value in found.items()}


def _words(data: BiasData, method: Method, sentences: Tensor, seed: int) -> Row:
    group = [method.texts(of) for of in data.prompts.group[:2]]
    found = association(sentences[0], sentences[1], *group, seed=seed)
    return {"WEAT d": found.d, "WEAT p": found.p}


def _utility(data: BiasData, method: Method, image: Tensor) -> Row:
    kept = data.utility
    row: Row = {"cosine with before": float((image * data.image).sum(1).mean())}
    if kept is None:
        return row
    text = method.separate_texts(kept.text)
    found = tasks.retrieval(method.images(kept.image), text, at=(1,))
    row["R@1"] = (found["image_to_text_r1"] + found["text_to_image_r1"]) / 2
    row["cosine of captions with before"] = float((text * kept.text).sum(1).mean())
    return row | _unrelated(data, kept, method, image)


def _unrelated(data: BiasData, kept: Utility, method: Method, image: Tensor) -> Row:
    if kept.labels is None or kept.sentences is None:
        return {}
    prototypes = _prototypes(torch.stack([method.texts(of) for of in kept.sentences]))
    test = torch.as_tensor(data.test)
    return {"unrelated zero-shot": tasks.zero_shot(image[test], prototypes, torch.as_tensor(kept.labels)[test])}


def _interval(value: float, drawn: Sequence[float] | np.ndarray) -> Interval:
    if not len(drawn):
        return value, float("nan"), float("nan")
    low, high = np.nanquantile(np.asarray(drawn, dtype=float), [0.025, 0.975])
    return value, float(low), float(high)
