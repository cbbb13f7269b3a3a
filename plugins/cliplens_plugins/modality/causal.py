"""Causal modality (ours): how much a latent matters to matching when it is ablated in one tower, the other, or both.

The latent's part of an activation, code times decoder row, is taken out at the embedding the dictionary reads; the
dictionary's error stays. The effect is what the true pair loses against the other pairs of the batch,

    effect = mean over m of L(m) after - L(m) before,        L(m) = log softmax over captions of scale * cos, at m

averaged over both directions of retrieval, and set against random directions of the same size in the same rows. At any
other hook, the model has to be run again: `causal_splice`.
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
    """Change of the mean log probability of the true pair, in nats; below 0 = the latent helps matching.

    `image`, `text`, `both`: ablated there. `random`: mean over matched random directions, and its standard deviation.
    """

    image: float
    text: float
    both: float
    random: dict[str, tuple[float, float]]

    def beyond_random(self, tower: str) -> float:
        """The effect there, less the mean effect of matched random directions where there are any."""
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
    """Ablate one latent at the shared embedding and see what matching loses.

    Args:
        image_acts: raw embeddings of the images (not centred).
        text_acts: of the captions, in step.
        image_code: the latent's activation on each image.
        text_code: on each caption.
        direction: its decoder row.
        scale: the model's logit scale, already exponentiated.
        n_random: how many matched random directions.
        seed: of those directions.
        image_ids: equal for pairs that show the same picture; None: all pictures differ.
        caption_ids: equal for pairs that say the same text; None: all texts differ.

    Raises:
        InputError: fewer than two pairs, so there is nothing to confuse a pair with.
    """
    if len(image_acts) < 2:
        raise InputError(expected="at least two pairs", found=str(len(image_acts)), fix="give more pairs")
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
    drawn = torch.nn.functional.normalize(drawn, dim=1) * direction.norm()
    controls = [effects(along) for along in drawn]
    random = {tower: mean_and_deviation([c[tower] for c in controls]) for tower in TOWERS}
    return CausalEffect(**found, random=random)


def _matching(
    image: Float[Tensor, "pair d_in"], text: Float[Tensor, "pair d_in"], scale: float, others: Bool[Tensor, "pair pair"]
) -> float:
    unit = torch.nn.functional.normalize
    return pair_log_probability(unit(image, dim=1), unit(text, dim=1), scale, others)


def pair_log_probability(
    image: Float[Tensor, "pair d"],
    text: Float[Tensor, "pair d"],
    scale: float,
    others: Bool[Tensor, "pair pair"] | None = None,
) -> float:
    """Return the mean log probability of the true pair, over both directions, of unit-norm embeddings; in nats.

    `others` says which captions are right for an image besides its own (`cliplens.tasks.other_right_pairs`): they are
    no alternatives to it and are left out.
    """
    logits = scale * image @ text.T
    if others is not None:
        logits = logits.masked_fill(others.to(logits.device), -torch.inf)
    return float((logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean()) / 2
