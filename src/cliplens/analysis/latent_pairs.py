"""Attribute the similarity of one image and one caption to pairs of latents."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.analysis.latents import SplicedSAE, attributed
from cliplens.analysis.parts import Attribution
from cliplens.analysis.paths import direct_path
from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower


@dataclass(frozen=True)
class LatentPairs:
    """The contributions of pairs of latents to one cosine similarity.

    `pairs.sum() + image_alone.sum() + text_alone.sum() + rest` equals `similarity` up to rounding.
    """

    image_latents: Int[Tensor, " k"]
    """Indices of the latents that contribute to the image embedding."""
    text_latents: Int[Tensor, " l"]
    """Indices of the latents that contribute to the caption embedding."""
    pairs: Float[Tensor, "k l"]
    """Dot product of the contributions of an image latent and a text latent to their embeddings."""
    image_alone: Float[Tensor, " k"]
    """Dot product of each image latent's contribution with the part of the caption embedding outside all latents."""
    text_alone: Float[Tensor, " l"]
    """Dot product of each text latent's contribution with the part of the image embedding outside all latents."""
    rest: float
    """Dot product of the two parts outside all latents."""
    similarity: float
    """Cosine similarity of the pair, in [-1, 1]."""

    def top(self, count: int = 10) -> list[tuple[int, int, float]]:
        """Return the `count` strongest pairs of latents as (image latent, text latent, contribution)."""
        strongest = self.pairs.flatten().abs().topk(min(count, self.pairs.numel())).indices
        rows, columns = strongest // self.pairs.shape[1], strongest % self.pairs.shape[1]
        return [
            (int(self.image_latents[i]), int(self.text_latents[j]), float(self.pairs[i, j]))
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        ]


@renamed_keywords(of_image="image_dictionary", of_text="text_dictionary")
def attribute_latent_pairs(
    clip: HookedCLIP,
    image: Float[Tensor, "image 3 height width"],
    tokens: Int[Tensor, "caption context"],
    dictionary: Any = None,
    *,
    image_dictionary: Any = None,
    text_dictionary: Any = None,
) -> LatentPairs:
    """Attribute the similarity of one image and one caption to pairs of an image latent and a text latent.

    Both embeddings are split into contributions of latents as in `attribute_latents`, with norms held fixed. Their dot
    product is then a double sum over image latents and text latents.

    Args:
        clip: a model with both towers.
        image: one preprocessed image, [1, 3, height, width].
        tokens: token ids of one caption, [1, context].
        dictionary: a cliplens `Dictionary` for both towers.
        image_dictionary: a dictionary for the vision tower, used in place of `dictionary`.
        text_dictionary: a dictionary for the text tower, used in place of `dictionary`.

    Raises:
        InputError: there is more than one pair, a tower has no dictionary, or `attribute_latents` refuses it.
        MismatchError: a dictionary does not have the width of its hook.
    """
    if len(image) != 1 or len(tokens) != 1 or clip.text is None or clip.vision is None:
        raise InputError(
            expected="one image, one caption and a model with both towers",
            found=f"{len(image)} images, {len(tokens)} captions and {_towers(clip)}",
            fix="call attribute_latent_pairs once per pair, with a model that has both towers",
        )
    seen = _vectors(clip.vision, image, dictionary if image_dictionary is None else image_dictionary)
    read = _vectors(clip.text, tokens, dictionary if text_dictionary is None else text_dictionary)
    (k, u, u_rest), (m, v, v_rest) = _active(seen), _active(read)
    similarity = float((seen.similarity * read.similarity).sum())
    return LatentPairs(k, m, u @ v.T, u @ v_rest, v @ u_rest, float(u_rest @ v_rest), similarity)


def _towers(clip: HookedCLIP) -> str:
    return "one tower" if clip.text is None or clip.vision is None else "both towers"


def _vectors(tower: HookedTower, inputs: Tensor, dictionary: Any) -> Attribution:
    """Return the contribution of each latent to each coordinate of the unit-norm embedding; rows are coordinates."""
    if dictionary is None:
        raise InputError(
            expected=f"a dictionary for the {tower.cfg.side} tower",
            found="none",
            fix="pass dictionary=, or image_dictionary= and text_dictionary=",
        )
    reader = SplicedSAE.of(dictionary, tower, None)
    d = tower.cfg.d_embed
    path, read = direct_path(tower, inputs, reader.writes, reader.reads, copies=d)
    return attributed(path, read, reader, torch.eye(d, dtype=path.acts.dtype, device=path.acts.device))


def _active(vectors: Attribution) -> tuple[Tensor, Tensor, Tensor]:
    latents = vectors.parts.abs().amax(0).nonzero()[:, 0]
    return latents, vectors.parts[:, latents].T, torch.stack(list(vectors.rest.values())).sum(0)
