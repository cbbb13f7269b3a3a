"""Which latent of the image meets which latent of the caption: one similarity as a table."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.analysis.latents import SplicedSAE, attributed
from cliplens.analysis.parts import Attribution
from cliplens.analysis.paths import direct_path
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower


@dataclass(frozen=True)
class LatentPairs:
    """`pairs.sum() + image_alone.sum() + text_alone.sum() + rest` is the cosine similarity of one pair."""

    image_latents: Int[Tensor, " k"]
    text_latents: Int[Tensor, " l"]
    pairs: Float[Tensor, "k l"]
    """What image latent and text latent contribute together: the product of what each writes to its embedding."""
    image_alone: Float[Tensor, " k"]
    """Image latents with all of the caption that no latent carries (bias, error, elsewhere, offset)."""
    text_alone: Float[Tensor, " l"]
    """Text latents with all of the image that no latent carries."""
    rest: float
    similarity: float

    def top(self, count: int = 10) -> list[tuple[int, int, float]]:
        """The strongest meetings, (image latent, text latent, contribution)."""
        strongest = self.pairs.flatten().abs().topk(min(count, self.pairs.numel())).indices
        rows, columns = strongest // self.pairs.shape[1], strongest % self.pairs.shape[1]
        return [
            (int(self.image_latents[i]), int(self.text_latents[j]), float(self.pairs[i, j]))
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        ]


def attribute_latent_pairs(
    clip: HookedCLIP,
    image: Tensor,
    tokens: Tensor,
    dictionary: Any = None,
    *,
    of_image: Any = None,
    of_text: Any = None,
) -> LatentPairs:
    """One image and one caption: what each latent of the one contributes with each latent of the other.

    Both embeddings are taken apart as in `attribute_latents` (norms and lengths held); their product is a double sum.

    Args:
        clip: a model with both towers.
        image: [1, 3, height, width].
        tokens: [1, context].
        dictionary: a cliplens `Dictionary` for both; `of_image` and `of_text` go before it.
        of_image: a dictionary for the vision tower.
        of_text: a dictionary for the text tower.

    Raises:
        InputError: more than one pair, no dictionary for a tower, or what `attribute_latents` refuses.
    """
    if len(image) != 1 or len(tokens) != 1 or clip.text is None or clip.vision is None:
        raise InputError(
            expected="one image and one caption", found=f"{len(image)} and {len(tokens)}", fix="call it once per pair"
        )
    seen = _vectors(clip.vision, image, dictionary if of_image is None else of_image)
    read = _vectors(clip.text, tokens, dictionary if of_text is None else of_text)
    (k, u, u_rest), (m, v, v_rest) = _active(seen), _active(read)
    similarity = float((seen.similarity * read.similarity).sum())
    return LatentPairs(k, m, u @ v.T, u @ v_rest, v @ u_rest, float(u_rest @ v_rest), similarity)


def _vectors(tower: HookedTower, inputs: Tensor, dictionary: Any) -> Attribution:
    """What each latent writes to each coordinate of the unit-norm embedding: rows are coordinates."""
    if dictionary is None:
        raise InputError(
            expected=f"a dictionary for the {tower.cfg.side} tower",
            found="none",
            fix="give dictionary=, of_image=, of_text=",
        )
    reader = SplicedSAE.of(dictionary, tower, None)
    d = tower.cfg.d_embed
    path, read = direct_path(tower, inputs, reader.writes, reader.reads, copies=d)
    return attributed(path, read, reader, torch.eye(d, dtype=path.acts.dtype, device=path.acts.device))


def _active(vectors: Attribution) -> tuple[Tensor, Tensor, Tensor]:
    latents = vectors.parts.abs().amax(0).nonzero()[:, 0]
    return latents, vectors.parts[:, latents].T, torch.stack(list(vectors.rest.values())).sum(0)
