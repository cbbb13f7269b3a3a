"""A bank of concepts: the vocabulary of a tower, which has none of its own.

The bank of a vision tower holds embeddings of captions (a zero-shot classifier); that of a text tower, embeddings of
images. `logit_attrs` of TransformerLens and the evaluations of SAELens need logits and losses: with a bank they work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.arrays import check_embeddings
from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked.head import affine
from cliplens.hooked.norm import ClosedNorm, HookedLayerNorm
from cliplens.hooked.pooler import HookedPooler
from cliplens.hooked.splicing import SplicedTower
from cliplens.shapes import TowerInputs

ConceptLabels = Callable[[Tensor], Int[Tensor, " batch"]]
RETURN_TYPES = ("logits", "loss", "both")


@dataclass(frozen=True)
class Bank:
    """The concepts that a tower's output is compared with."""

    embeddings: Float[Tensor, "concept d_embed"]
    """Unit-norm embeddings in the joint embedding space."""
    names: tuple[str, ...]
    scale: float = 1.0
    """Scale of the logits `scale * cosine + bias`."""
    bias: float = 0.0
    """Bias of the logits (SigLIP has one)."""
    labels: ConceptLabels | None = None
    """The correct concept of each input. None: the concept that the unedited model predicts."""


class BankedTower(SplicedTower):
    """A tower that returns logits over the concepts of its bank, if it has one."""

    bank: Bank | None = None
    ln_final: HookedLayerNorm | ClosedNorm

    def set_bank(
        self,
        embeddings: Float[Tensor, "concept d_embed"],
        names: Sequence[str] | None = None,
        *,
        scale: float = 1.0,
        bias: float = 0.0,
        labels: ConceptLabels | Int[Tensor, " image"] | None = None,
    ) -> None:
        """Register the concepts. Their embeddings are normalised.

        Args:
            embeddings: embeddings of the concepts in the joint embedding space.
            names: names of the concepts; None numbers them.
            scale: logits are `scale * cosine + bias`.
            bias: see `scale`.
            labels: the correct concept of each input: a function of the inputs, or, for image tokens, one index per
                image. None takes the prediction of the unedited model; the loss then measures how far an edit changes
                the predictions, not how accurate they are.

        Raises:
            MismatchError: the embeddings have another width, or their number differs from that of the names.
            NonFiniteError: an embedding holds nan or inf.
        """
        names = tuple(str(i) for i in range(len(embeddings))) if names is None else tuple(names)
        d = self.cfg.d_embed
        if embeddings.shape[1] != d or len(names) != len(embeddings):
            raise MismatchError(
                expected=f"embeddings [concept, {d}] and as many names",
                found=f"{list(embeddings.shape)} and {len(names)} names",
                fix="embed the concepts with the other tower of this model",
            )
        check_embeddings(embeddings, "embeddings of the concepts")
        chosen = _by_image(labels) if isinstance(labels, Tensor) else labels
        self.bank = Bank(
            F.normalize(embeddings.detach().to(self.cfg.device, self.cfg.dtype), dim=-1), names, scale, bias, chosen
        )

    def to_single_token(self, name: str) -> int:
        """Return the index of a concept.

        Raises:
            UnknownNameError: the bank has no concept of that name.
        """
        bank = self._the_bank()
        if name not in bank.names:
            raise unknown_name("concept in the bank", name, bank.names)
        return bank.names.index(name)

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape d_model"]:
        """Return the directions of concepts in the normalised final stream, for `ActivationCache.logit_attrs`.

        The dot product of the normalised stream (`ln_final.hook_normalized`) with a direction, plus `bank_offset`, is
        |output| times the cosine of output and concept. This holds at the position that the tower reads its output from
        (class token, end token), or for the mean over positions if the tower averages them.

        Raises:
            InputError: the tower has no bank, or its head is not: final norm, one position or their mean, projection.
        """
        gain, matrix, _ = self._head()
        directions = self._chosen_concepts(tokens) @ matrix.T
        return directions if gain is None else directions * gain

    def unembedding(self) -> tuple[Float[Tensor, "d_model concept"], Float[Tensor, " concept"]]:
        """Return the matrix and the offset from the output of the final norm to the concepts of the bank.

        Raises:
            InputError: the tower has no bank, or its head is another than final norm, one position, projection.
        """
        concepts = self._the_bank().embeddings.T
        _, matrix, offset = self._head()
        if self.ln_final.b is not None:  # `_head` counts the offset of the norm, which its output already holds
            offset = offset - self.ln_final.b.detach().to(matrix.dtype) @ matrix
        return matrix @ concepts, offset @ concepts

    def bank_offset(self, tokens: str | int | Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the constant part of each concept's dot product: from the norm's offset and the projection's bias."""
        return self._chosen_concepts(tokens) @ self._head()[2]

    def answer(self, inputs: TowerInputs, return_type: str, loss_per_token: bool = False) -> Any:
        """Return logits over the bank [batch, pos, concept], their cross entropy or both, as a language model does.

        A tower has one output per input; its logits are repeated at each of the `pos` positions.

        Raises:
            InputError: the tower has no bank, or `return_type` is unknown.
        """
        if return_type not in RETURN_TYPES:
            raise InputError(
                expected=f"return_type None, 'embedding' or, with a bank, one of {', '.join(RETURN_TYPES)}",
                found=repr(return_type),
                fix="leave return_type out",
            )
        bank = self._the_bank()
        if not isinstance(inputs, Tensor):
            inputs = self.checked(inputs)
        logits = self._logits(self.encode(inputs)[1], bank)
        positions = inputs.shape[1] if inputs.ndim == 2 else self.cfg.n_ctx
        shown = logits.unsqueeze(1).expand(-1, positions, -1)
        if return_type == "logits":
            return shown
        losses = F.cross_entropy(logits, self._labels(inputs, bank), reduction="none")
        loss = losses.unsqueeze(1).expand(-1, positions) if loss_per_token else losses.mean()
        return loss if return_type == "loss" else (shown, loss)

    def _logits(self, embedding: Float[Tensor, "batch d_embed"], bank: Bank) -> Float[Tensor, "batch concept"]:
        return bank.scale * embedding @ bank.embeddings.T + bank.bias

    def _labels(self, inputs: Tensor, bank: Bank) -> Int[Tensor, " batch"]:
        if bank.labels is not None:
            return bank.labels(inputs).to(bank.embeddings.device)
        with torch.no_grad(), self.evaluating():
            untouched = F.normalize(self.run_stock(self.checked(inputs)), dim=-1)
        return self._logits(untouched, bank).argmax(dim=-1)

    def _the_bank(self) -> Bank:
        if self.bank is None:
            raise InputError(
                expected="a tower with a bank of concepts, which logits need",
                found="none",
                fix="register a bank with clip.set_text_bank(captions) or tower.set_bank(embeddings, names)",
            )
        return self.bank

    def _chosen_concepts(self, tokens: str | int | Tensor) -> Tensor:
        embeddings = self._the_bank().embeddings
        if isinstance(tokens, Tensor):
            return embeddings[tokens.to(embeddings.device)]
        return embeddings[self.to_single_token(tokens) if isinstance(tokens, str) else tokens]

    def _head(self) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gain of the final norm, the projection, and the offset of both together."""
        norm = self._modules.get("ln_final")
        if norm is None or any(isinstance(m, HookedPooler) for m in self.modules()):
            raise InputError(
                expected="a tower with these last steps: final norm, one position or the mean of positions, projection",
                found=f"another kind in {self.cfg.model_name or self.cfg.family}",
                fix="compare hook_pooled or hook_embedding with the bank instead",
            )
        like = self._the_bank().embeddings
        with self.evaluating():
            matrix, offset = affine(self.project, self.cfg.d_model, like)
        if self.ln_final.b is not None:
            offset = offset + self.ln_final.b.to(like.dtype) @ matrix
        gain = self.ln_final.w
        return None if gain is None else gain.detach().to(like.dtype), matrix.detach(), offset.detach()


def _by_image(labels: Int[Tensor, " image"]) -> ConceptLabels:
    def of(inputs: Tensor) -> Int[Tensor, " batch"]:
        if inputs.is_floating_point():
            raise InputError(
                expected="image tokens, which hold the index of each image",
                found="float images",
                fix="pass labels as a function of the inputs",
            )
        return labels.to(inputs.device)[inputs[:, -1] - 1]

    return of
