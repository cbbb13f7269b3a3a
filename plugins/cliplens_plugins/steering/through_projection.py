"""Steer the embedding of a caption in pipelines that read the states before the projection, such as Stable Diffusion 1.

Such a pipeline has no embedding to edit: it reads the states x that CLIP's text projection e = x W + b would map to the
embedding at EOT. The change of the embedding is taken back through the pseudo-inverse, x + (e' - e) W^+, so that the
projection of the new state is the edited embedding. EOT and the padding after it, which repeat the whole prompt, move
by the same vector; the words before them stay as they are. The projection is that of the run's model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from cliplens.errors import InputError, MismatchError
from cliplens.sites import Modality, Site
from cliplens_plugins.steering.derived import DerivedSteering
from cliplens_plugins.steering.ports import diffusion, transformers_clip
from cliplens_plugins.steering.ports.rewriting import on_direction, with_position

SAME = 0.98
"""Least cosine of the embeddings of a phrase by the pipeline and by the run's model, to count as the same encoder."""
_PROBE = "a photo of a red ring"
_ELSEWHERE = "steer a site of the blocks of the text encoder, with a dictionary trained there"
_EMBEDDINGS = ("hook_projected", "hook_embedding")


@dataclass(frozen=True, eq=False)
class Projection:
    """The affine map from the state at EOT to the embedding of a caption, and its pseudo-inverse.

    Raises:
        InputError: the map cannot be inverted: several embeddings' changes have no change of the state.
    """

    weight: Float[Tensor, "d_model d_embed"]
    bias: Float[Tensor, " d_embed"]

    def __post_init__(self) -> None:
        if torch.linalg.matrix_rank(self.weight.double()) < self.weight.shape[1]:
            raise InputError(
                expected="a text projection that can be inverted",
                found=f"one from {self.weight.shape[0]} to {self.weight.shape[1]} numbers of lower rank",
                fix=_ELSEWHERE,
            )

    @classmethod
    @torch.no_grad()
    def of(cls, tower: Any) -> "Projection":
        """Return the projection of a tower.

        Raises:
            InputError: it is no affine map, or cannot be inverted.
        """
        width = tower.width("hook_pooled")
        like = next(tower.parameters())
        rows = tower.project(torch.cat([torch.eye(width), torch.zeros(1, width)]).to(like))
        weight, bias = (rows[:-1] - rows[-1]).float(), rows[-1].float()
        drawn = torch.randn(2, width, generator=torch.Generator().manual_seed(0)).to(like)
        if not torch.allclose(drawn.float() @ weight + bias, tower.project(drawn).float(), rtol=1e-2, atol=1e-2):
            raise InputError(expected="a text projection that is a matrix", found="one with layers", fix=_ELSEWHERE)
        return cls(weight, bias)

    @cached_property
    def inverse(self) -> Float[Tensor, "d_embed d_model"]:
        """The pseudo-inverse of the weight, in float64."""
        return torch.linalg.pinv(self.weight.double())


@dataclass(frozen=True, eq=False)
class ThroughProjection(DerivedSteering):
    """Rewrites states before a projection as another steering rewrites the embedding."""

    projection: Projection
    unit: bool
    """Whether the other steering rewrites the embedding at unit norm."""

    @property
    def d_in(self) -> int:
        """Return the width of the states."""
        return len(self.projection.weight)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return the output of the text encoder's last norm."""
        return (Site("text", transformers_clip.FINAL),)

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        if special is None:
            raise MismatchError(
                expected="states with a known EOT position",
                found="states without one",
                fix="pass the tokens of a prompt",
            )
        ends = special.to(acts.device)
        weight, bias, inverse = (
            part.to(acts.device) for part in (self.projection.weight, self.projection.bias, self.projection.inverse)
        )
        embedding = acts[torch.arange(len(acts), device=acts.device), ends].to(weight) @ weight + bias

        def rewrite(rows: Tensor, _: Tensor | None) -> Tensor:
            return self.of(rows, modality)

        moved = with_position(on_direction(rewrite) if self.unit else rewrite, embedding)
        change = ((moved - embedding).double() @ inverse).to(acts)[:, None]
        from_end_on = torch.arange(acts.shape[1], device=acts.device) >= ends[:, None]
        return torch.where(from_end_on[..., None], acts + change, acts)


def projection_for(pipeline: Any, sites: Sequence[Site], run: Any) -> tuple[Projection, bool] | None:
    """Return the projection through which a pipeline is steered, and whether embeddings have unit norm.

    None where the pipeline has one of the sites itself, or none of them is the embedding of a caption.

    Args:
        pipeline: the pipeline.
        sites: the sites to steer.
        run: the opened run whose model has the projection; None without one.

    Raises:
        MismatchError: the pipeline's text encoder is not that of the run's model.
        InputError: the projection of the run's model cannot be inverted.
    """
    texts = [s for s in sites if s.side == "text" and s.hook in _EMBEDDINGS]
    if (
        run is None
        or not texts
        or not diffusion.is_pipeline(pipeline)
        or any(diffusion.has(pipeline, s) for s in sites)
    ):
        return None
    encoder = diffusion.text_encoder_of(pipeline)
    if encoder is None or "text" not in run.clip.towers:
        return None
    projection = Projection.of(run.clip.text)
    _check_same(pipeline, encoder, run, projection)
    return projection, texts[0].hook == "hook_embedding"


@torch.no_grad()
def _check_same(pipeline: Any, encoder: Any, run: Any, projection: Projection) -> None:
    words = pipeline.tokenizer
    length = words.model_max_length
    tokens = words([_PROBE], padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    pooled = encoder(tokens.to(encoder.device)).pooler_output[0].float().cpu()
    weight, bias = projection.weight.cpu(), projection.bias.cpu()
    cosine = float("nan")
    if len(pooled) == len(weight):
        cosine = float(F.cosine_similarity(pooled @ weight + bias, run.embed([_PROBE])[0].float().cpu(), dim=0))
    if not cosine >= SAME:
        raise MismatchError(
            expected=f"a pipeline whose text encoder is that of the run's model {run.clip.identity.name}",
            found=f"another one: their embeddings of {_PROBE!r} have a cosine of {cosine:.2f}",
            fix="make a run on the CLIP of the pipeline, such as ViT-L-14 with openai weights for Stable Diffusion 1",
        )
