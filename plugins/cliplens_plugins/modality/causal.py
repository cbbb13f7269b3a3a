"""Measure the causal modality (ours): the effect on matching of ablating a latent in one tower, the other, or both.

The contribution of the latent (code times decoder row) is subtracted from the embedding on which the dictionary was
trained; the reconstruction error is kept. The effect is the change of the log probability of the true pair,

    effect = mean over m of L(m) after - L(m) before,        L(m) = log softmax over captions of scale * cos, at m

averaged over both directions of retrieval. The control ablates random directions of the same size in the same rows.
For dictionaries at other hooks, the model is run again: see `causal_splice`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.errors import InputError
from cliplens.statistics import mean_and_deviation
from cliplens.tasks import other_right_pairs

TOWERS = ("image", "text", "both")


@dataclass(frozen=True)
class CausalEffect:
    """Change of the mean log probability of the true pair, in nats; below 0 = the latent helps matching."""

    image: float
    """Effect of ablating the latent in the image tower."""
    text: float
    """Effect of ablating the latent in the text tower."""
    both: float
    """Effect of ablating the latent in both towers."""
    random: dict[str, tuple[float, float]]
    """Mean and standard deviation of the effect of matched random directions, by tower ("image", "text", "both")."""

    def beyond_random(self, tower: str) -> float:
        """Return the effect in a tower minus the mean effect of the random directions, if there are any."""
        mean = self.random[tower][0]
        effect: float = getattr(self, tower)
        return effect if mean != mean else effect - mean  # noqa: PLR0124


def causal_effect(
    image_acts: Float[Tensor, "pair d_in"],
    text_acts: Float[Tensor, "pair d_in"],
    image_code: Float[Tensor, " pair"],
    text_code: Float[Tensor, " pair"],
    direction: Float[Tensor, " d_in"],
    *,
    scale: float,
    n_random: int = 20,
    seed: int = 0,
    image_ids: Sequence[Hashable] | None = None,
    caption_ids: Sequence[Hashable] | None = None,
) -> CausalEffect:
    """Ablate one latent at the final embedding and measure the change in matching.

    Args:
        image_acts: raw embeddings of the images (not centred).
        text_acts: raw embeddings of the captions, in the same order of pairs.
        image_code: activation of the latent on each image.
        text_code: activation of the latent on each caption.
        direction: decoder row of the latent.
        scale: logit scale of the model, already exponentiated.
        n_random: number of matched random directions.
        seed: seed of the random directions.
        image_ids: equal for pairs with the same image; None if all images differ.
        caption_ids: equal for pairs with the same caption; None if all captions differ.

    Raises:
        InputError: there are fewer than two pairs, so no other pair to match with.
    """
    if len(image_acts) < 2:
        raise InputError(expected="at least two pairs", found=str(len(image_acts)), fix="pass more pairs")
    generator = torch.Generator().manual_seed(seed)
    sides = [x.double() for x in (image_acts, text_acts)]
    codes = [c.double()[:, None] for c in (image_code, text_code)]
    others = other_right_pairs(len(image_acts), image_ids, caption_ids)
    before = _matching(sides[0], sides[1], scale, others)

    def effects(along: Tensor) -> dict[str, float]:
        ablated = [x - c * along for x, c in zip(sides, codes, strict=True)]
        chosen = {"image": (ablated[0], sides[1]), "text": (sides[0], ablated[1]), "both": (ablated[0], ablated[1])}
        return {tower: _matching(pair[0], pair[1], scale, others) - before for tower, pair in chosen.items()}

    direction = direction.double()
    found = effects(direction)
    drawn = torch.randn(n_random, len(direction), generator=generator, dtype=torch.float64).to(direction)
    drawn = torch.nn.functional.normalize(drawn) * direction.norm()
    controls = [effects(along) for along in drawn]
    random = {tower: mean_and_deviation([c[tower] for c in controls]) for tower in TOWERS}
    return CausalEffect(**found, random=random)


def _matching(
    image: Float[Tensor, "pair d_in"], text: Float[Tensor, "pair d_in"], scale: float, others: Bool[Tensor, "pair pair"]
) -> float:
    unit = torch.nn.functional.normalize
    return pair_log_probability(unit(image), unit(text), scale, others)


def pair_log_probability(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    scale: float,
    others: Bool[Tensor, "pair pair"] | None = None,
) -> float:
    """Return the mean log probability of the true pair, over both directions of retrieval, in nats.

    Args:
        image: unit-norm embeddings of the images.
        text: unit-norm embeddings of their captions.
        scale: logit scale of the model, already exponentiated.
        others: other correct captions of each image (`cliplens.tasks.other_right_pairs`), left out of the softmax.
    """
    logits = scale * image @ text.T
    if others is not None:
        logits = logits.masked_fill(others.to(logits.device), -torch.inf)
    return float((logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean()) / 2
