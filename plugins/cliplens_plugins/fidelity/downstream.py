"""Measure retrieval, contrastive loss and zero-shot accuracy of a model with a dictionary spliced in.

The dictionary is spliced in at the hooks it was trained on, in one tower or both. The baselines are the model alone
and, at the same hooks, zero ablation and mean ablation. A perfect reconstruction gives exactly the figures of the
model; an all-zero reconstruction gives exactly those of zero ablation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.deprecation import renamed_keywords
from cliplens.hooked import HookedCLIP
from cliplens.shapes import Images, Tokens
from cliplens.sites import Site
from cliplens.tasks import contrastive_loss, ids_of_rows, retrieval, zero_shot


@dataclass(frozen=True)
class Classes:
    """A zero-shot task: one prompt per class, and the class of each image."""

    tokens: Tokens
    labels: Int[Tensor, " image"]


@torch.no_grad()
@renamed_keywords(batch_size="forward_batch")
def downstream(
    clip: HookedCLIP,
    images: Images,
    tokens: Tokens,
    dictionaries: Any,
    sites: Sequence[Site],
    *,
    classes: Classes | None = None,
    forward_batch: int = 64,
) -> dict[str, dict[str, float]]:
    """Measure the model, the model with the dictionary spliced in, and the model under both ablations.

    Args:
        clip: the model.
        images: preprocessed images.
        tokens: tokens of their captions, in the same order.
        dictionaries: the dictionaries as `clip.saes` accepts them: a cliplens `Dictionary` or SAELens SAEs.
        sites: the sites of the dictionaries, which are ablated.
        classes: a zero-shot task on the same images.
        forward_batch: pairs per forward.

    Returns:
        Figures by condition ("model", "dictionary", "zero ablation", "mean ablation"). Each condition has
        `contrastive_loss` (nats), recall at 1, 5 and 10 in both directions and, with `classes`, `zero_shot` accuracy.
    """
    shown = _Shown(clip, images, tokens, classes, forward_batch)
    conditions: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "model": nullcontext,
        "dictionary": partial(clip.saes, dictionaries),
        "zero ablation": partial(clip.hooks, fwd_hooks=[(str(site), _zero) for site in sites]),
        "mean ablation": partial(
            clip.hooks, fwd_hooks=[(str(s), partial(_replace, value=shown.mean(s))) for s in sites]
        ),
    }
    found = {}
    for name, condition in conditions.items():
        with condition():
            found[name] = shown.figures()
    return found


def recovered(figures: Mapping[str, Mapping[str, float]], figure: str, ablation: str = "mean ablation") -> float:
    """Return the fraction of a figure that the dictionary recovers: 0 where it is that of the ablation, 1 where it is
    that of the model.

    It is below 0 where the dictionary does worse than the ablation, and nan where ablation changes nothing. "Loss
    recovered" in the literature is this of `contrastive_loss`. Zero ablation often does more harm than leaving a site
    out would, which flatters the dictionary, so the fraction from mean ablation is the stricter one as a rule.

    Args:
        figures: the result of `downstream`.
        figure: name of the figure.
        ablation: the end that counts 0: "zero ablation" or "mean ablation".

    >>> recovered({"model": {"f": 1.0}, "dictionary": {"f": 1.5}, "mean ablation": {"f": 3.0}}, "f")
    0.75
    """
    model, own, end = (figures[condition][figure] for condition in ("model", "dictionary", ablation))
    return (own - end) / (model - end) if model != end else float("nan")


class _Shown:
    """Evaluates the model on a fixed set of images and captions, under the hooks attached at the time."""

    def __init__(
        self, clip: HookedCLIP, images: Images, tokens: Tokens, classes: Classes | None, forward_batch: int
    ) -> None:
        self.clip, self.images, self.tokens, self.classes, self.batch = clip, images, tokens, classes, forward_batch
        self._shared: dict[str, Any] = {"image_ids": ids_of_rows(images), "caption_ids": ids_of_rows(tokens)}
        """Pairs with equal pixels count as one image, pairs with equal tokens as one caption."""

    def figures(self) -> dict[str, float]:
        """Return all figures under the hooks attached now."""
        clip = self.clip
        image = torch.cat([clip.encode_image(x, normalize=True) for x in self._cut(self.images)])
        text = self._texts(self.tokens)
        scale, bias = clip.logit_scale_and_bias()
        loss = contrastive_loss(image, text, float(scale), None if bias is None else float(bias), **self._shared)
        figures = {"contrastive_loss": loss, **retrieval(image, text, **self._shared)}
        if self.classes is not None:
            figures["zero_shot"] = zero_shot(image, self._texts(self.classes.tokens), self.classes.labels)
        return figures

    def mean(self, site: Site) -> Float[Tensor, "pos d"]:
        """Return the mean activation of a site at each position."""
        tower, given = self.clip.towers[site.side], self.images if site.side == "vision" else self.tokens
        total = [tower.read(x, [site.hook])[site.hook].double().sum(0) for x in self._cut(given)]
        return torch.stack(total).sum(0) / len(given)

    def _texts(self, tokens: Tokens) -> Float[Tensor, "row d"]:
        return torch.cat([self.clip.encode_text(x, normalize=True) for x in self._cut(tokens)])

    def _cut(self, rows: Tensor) -> Iterator[Tensor]:
        for start in range(0, len(rows), self.batch):
            yield rows[start : start + self.batch].to(self.clip.device)


def _zero(activation: Tensor, hook: Any) -> Tensor:
    return torch.zeros_like(activation)


def _replace(activation: Tensor, hook: Any, *, value: Tensor) -> Tensor:
    return value.to(activation).expand_as(activation)
