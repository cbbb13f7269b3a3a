"""Group-sparse, masked group-sparse and iso-energy dictionaries with a faster training step and the same losses.

`sparse_training` holds the step. The losses on pairs are computed from the firing latents: those of a caption are
looked up among those of its picture.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.sae.architectures.fast_topk import FastTopKTrainingSAE
from cliplens.sae.architectures.group_sparse import GroupSparseTrainingSAEConfig
from cliplens.sae.architectures.iso_energy import IsoEnergyTrainingSAEConfig
from cliplens.sae.architectures.masked_group_sparse import MaskedGroupSparseTrainingSAEConfig, hidden_latents
from cliplens.sae.architectures.paired import halves, register_training
from cliplens.sae.architectures.ranking import Ranked, strongest_of_rows
from cliplens.sae.architectures.sparse_training import Firings

_TINY = 1e-8
"""The least norm of `torch.nn.functional.cosine_similarity`."""


@dataclass(frozen=True)
class PairedFirings:
    """The firing latents of pictures and of their captions, and where a caption's latent fires on its picture too."""

    image: Float[Tensor, "pair k"]
    text: Float[Tensor, "pair k"]
    """Codes; they carry gradients."""
    image_at: Int[Tensor, "pair k"]
    text_at: Int[Tensor, "pair k"]
    """Latents, sorted within a row."""

    @classmethod
    def of(cls, codes: Float[Tensor, " firing"], fired: Firings, k: int) -> "PairedFirings":
        """Return the firings of a paired batch with `k` latents a row."""
        codes, at = codes.view(-1, k), fired.at.view(-1, k)
        return cls(*halves(codes), *at.split(len(at) // 2))

    def partners(self) -> tuple[Int[Tensor, "pair k"], Bool[Tensor, "pair k"]]:
        """Return for each latent of a caption its place among those of the picture, and whether it is there."""
        place = torch.searchsorted(self.image_at, self.text_at).clamp_max_(self.image_at.shape[1] - 1)
        return place, self.image_at.gather(1, place) == self.text_at


def sparse_group_penalty(fired: PairedFirings) -> Float[Tensor, ""]:
    """Return `group_penalty` of the codes, at least 0."""
    place, both = fired.partners()
    partner = torch.where(both, fired.image.gather(1, place), 0.0)
    shared = torch.zeros_like(fired.image_at).scatter_add_(1, place, both.long()) > 0
    of_text = torch.linalg.vector_norm(torch.stack([fired.text, partner]), dim=0)
    return (of_text.sum() + torch.where(shared, 0.0, fired.image).sum()) / len(fired.image)


def sparse_alignment(fired: PairedFirings) -> Float[Tensor, ""]:
    """Return `alignment` of the codes, in [-1, 1]."""
    largest = [at.gather(1, codes.argmax(dim=1, keepdim=True)) for codes, at in fired_sides(fired)]
    image, text = (torch.where((at == largest[0]) | (at == largest[1]), 0.0, codes) for codes, at in fired_sides(fired))
    place, both = fired.partners()
    product = (torch.where(both, image.gather(1, place), 0.0) * text).sum(1)
    norms = [side.square().sum(1).clamp_min(_TINY**2).sqrt() for side in (image, text)]
    return (product / (norms[0] * norms[1])).mean()


def fired_sides(fired: PairedFirings) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return codes and latents of pictures, and of captions."""
    return (fired.image, fired.image_at), (fired.text, fired.text_at)


class FastPairedTrainingSAE(FastTopKTrainingSAE):
    """TopK with losses on pairs and a training step over the firing latents only."""

    @abstractmethod
    def pair_losses(self, fired: PairedFirings) -> dict[str, Tensor]:
        """Return the losses on the codes of a paired batch, by name; they are added to TopK's own."""

    def further_losses(self, x: Float[Tensor, "batch d_in"], fired: Firings) -> dict[str, Float[Tensor, ""]]:
        """Return the losses on pairs; codes are scaled by decoder norms, with their gradient, as in the stock class."""
        codes = fired.values
        if self.cfg.rescale_acts_by_decoder_norm:
            codes = codes * self.W_dec.norm(dim=-1).index_select(0, fired.at)
        return self.pair_losses(PairedFirings.of(codes, fired, self.cfg.k))


@dataclass
class FastGroupSparseTrainingSAEConfig(GroupSparseTrainingSAEConfig):
    """The fields of group-sparse."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_group_sparse"


class FastGroupSparseTrainingSAE(FastPairedTrainingSAE):
    """Group-sparse with a training step over the firing latents only."""

    cfg: FastGroupSparseTrainingSAEConfig

    def pair_losses(self, fired: PairedFirings) -> dict[str, Tensor]:
        """Return the group penalty, at least 0."""
        return {"group_loss": self.cfg.group_coefficient * sparse_group_penalty(fired)}


@dataclass
class FastMaskedGroupSparseTrainingSAEConfig(MaskedGroupSparseTrainingSAEConfig):
    """The fields of masked group-sparse."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_masked_group_sparse"


class FastMaskedGroupSparseTrainingSAE(FastGroupSparseTrainingSAE):
    """Masked group-sparse with a training step over the firing latents only."""

    cfg: FastMaskedGroupSparseTrainingSAEConfig

    def choose(self, ranked: Ranked) -> Int[Tensor, " firing"]:
        """Return the flat indices of the k largest unmasked values of each row, sorted."""
        if not self.training:
            return super().choose(ranked)
        hidden = hidden_latents(ranked.product, self.cfg.mask_probability, self.cfg.mask_mode)
        ranked.product.masked_fill_(hidden, torch.finfo(ranked.product.dtype).min / 2)
        return strongest_of_rows(ranked, self.cfg.k)


@dataclass
class FastIsoEnergyTrainingSAEConfig(IsoEnergyTrainingSAEConfig):
    """The fields of iso-energy."""

    @classmethod
    def architecture(cls) -> str:
        """Return its name in SAELens' registry."""
        return "fast_iso_energy"


class FastIsoEnergyTrainingSAE(FastPairedTrainingSAE):
    """Iso-energy with a training step over the firing latents only."""

    cfg: FastIsoEnergyTrainingSAEConfig

    def pair_losses(self, fired: PairedFirings) -> dict[str, Tensor]:
        """Return the alignment loss, negative where codes agree."""
        return {"alignment_loss": -self.cfg.align_coefficient * self.cfg.d_in * sparse_alignment(fired)}


register_training("fast_group_sparse", FastGroupSparseTrainingSAE, FastGroupSparseTrainingSAEConfig)
register_training("fast_masked_group_sparse", FastMaskedGroupSparseTrainingSAE, FastMaskedGroupSparseTrainingSAEConfig)
register_training("fast_iso_energy", FastIsoEnergyTrainingSAE, FastIsoEnergyTrainingSAEConfig)
