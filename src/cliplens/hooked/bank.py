"""A bank of concepts, which takes the place of the vocabulary a tower does not have.

For a vision tower it holds embeddings of captions (a zero-shot classifier), for a text tower embeddings of images. With
one, TransformerLens' `logit_attrs` and SAELens' evaluations, which ask for logits and losses, work on a tower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.errors import InputError, MismatchError, unknown_name
from cliplens.hooked.head import affine
from cliplens.hooked.norm import ClosedNorm, HookedLayerNorm
from cliplens.hooked.pooler import HookedPooler
from cliplens.hooked.splicing import SplicedTower

ConceptLabels = Callable[[Tensor], Int[Tensor, " batch"]]
RETURN_TYPES = ("logits", "loss", "both")


@dataclass(frozen=True)
class Bank:
    """Concepts a tower's outputs are compared with."""

    embeddings: Float[Tensor, "concept d_embed"]
    """Unit-norm, in the space both towers share."""
    names: tuple[str, ...]
    scale: float = 1.0
    """Logits are `scale * cosine + bias`; the model's own logit scale."""
    bias: float = 0.0
    """The model's own logit bias (SigLIP)."""
    labels: ConceptLabels | None = None
    """The right concept of each input; None: the one the model picks when nobody interferes."""


class BankedTower(SplicedTower):
    """A tower that answers in concepts once it has been given a bank of them."""

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
        """Register the concepts; embeddings are brought to norm 1.

        Args:
            embeddings: the concepts, in the space both towers share.
            names: names of the concepts; their numbers when None.
            scale: logits are `scale * cosine + bias`.
            bias: see `scale`.
            labels: the right concept of each input, as a function of the inputs, or for image tokens as one number per
                image. None: the concept the model itself picks when nobody interferes, so that a loss says how well an
                edited model keeps to the original's answers, not how right they are.

        Raises:
            MismatchError: the embeddings have another width, or there is not one name per embedding.
        """
        names = tuple(str(i) for i in range(len(embeddings))) if names is None else tuple(names)
        d = self.cfg.d_embed
        if embeddings.shape[1] != d or len(names) != len(embeddings):
            raise MismatchError(
                expected=f"embeddings [concept, {d}] and as many names",
                found=f"{list(embeddings.shape)} and {len(names)} names",
                fix="embed the concepts with the other tower of this model",
            )
        chosen = _by_image(labels) if isinstance(labels, Tensor) else labels
        self.bank = Bank(
            F.normalize(embeddings.detach().to(self.cfg.device, self.cfg.dtype), dim=-1), names, scale, bias, chosen
        )

    def to_single_token(self, name: str) -> int:
        """Return the number of a concept.

        Raises:
            UnknownNameError: the bank has no such concept.
        """
        bank = self._the_bank()
        if name not in bank.names:
            raise unknown_name("concept in the bank", name, bank.names)
        return bank.names.index(name)

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape d_model"]:
        """Return directions in the normalised final stream, as `ActivationCache.logit_attrs` wants them.

        The product of a normalised stream (`ln_final.hook_normalized`) with a concept's direction, plus `bank_offset`,
        gives the unnormalised output's product with the concept's unit embedding: |output| times the cosine. It holds
        where the tower reads its output (class token, end token); where it averages positions, for their average.

        Raises:
            InputError: no bank, or a head that is not final norm, pick or average, projection.
        """
        gain, matrix, _ = self._head()
        directions = self._chosen_concepts(tokens) @ matrix.T
        return directions if gain is None else directions * gain

    def bank_offset(self, tokens: str | int | Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return what the norm's offset and the projection's bias add to each concept's product, for every input."""
        return self._chosen_concepts(tokens) @ self._head()[2]

    def answer(self, inputs: Tensor, return_type: str, loss_per_token: bool = False) -> Any:
        """Return logits over the bank [batch, pos, concept], the cross entropy or both, in a language model's shapes.

        The tower has one answer per input; it is shown at each of the `pos` positions the inputs have.

        Raises:
            InputError: no bank, or no such `return_type`.
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
                expected="a tower with a bank of concepts: it has no vocabulary to give logits over",
                found="none",
                fix="register one: clip.set_text_bank(captions), or tower.set_bank(embeddings, names)",
            )
        return self.bank

    def _chosen_concepts(self, tokens: str | int | Tensor) -> Tensor:
        embeddings = self._the_bank().embeddings
        if isinstance(tokens, Tensor):
            return embeddings[tokens.to(embeddings.device)]
        return embeddings[self.to_single_token(tokens) if isinstance(tokens, str) else tokens]

    def _head(self) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the final norm's gain, the projection, and their offset."""
        norm = self._modules.get("ln_final")
        if norm is None or any(isinstance(m, HookedPooler) for m in self.modules()):
            raise InputError(
                expected="a head that normalises the stream, picks or averages positions, and projects",
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
                expected="image tokens, which say which image is which",
                found="float images",
                fix="give the labels as a function of the inputs",
            )
        return labels.to(inputs.device)[inputs[:, -1] - 1]

    return of
