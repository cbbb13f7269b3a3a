"""Objectives of attacks: losses of zero-shot classification, of features, of captions, of classes of latents."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from cliplens_plugins.robustness.eye import Change, Eye
from cliplens_plugins.robustness.pgd import Objective, Scored
from cliplens_plugins.robustness.pixels import Pixels


def margins(
    unit: Float[Tensor, "sample d"], prototypes: Float[Tensor, "class d"], labels: Int[Tensor, " sample"]
) -> Float[Tensor, " sample"]:
    """Return the cosine with the best wrong class minus the cosine with the own: above 0 where it is misclassified.

    >>> margins(torch.eye(2), torch.eye(2), torch.tensor([0, 0])).tolist()
    [-1.0, 1.0]
    """
    cosine = unit @ prototypes.to(unit).T
    own = labels.to(unit.device)[:, None]
    wrong = cosine.scatter(1, own, -torch.inf).amax(1)
    return wrong - cosine.gather(1, own)[:, 0]


def zero_shot(
    eye: Eye,
    prototypes: Float[Tensor, "class d"],
    labels: Int[Tensor, " sample"],
    *,
    loss: str = "margin",
    scale: float = 100.0,
    change: Change | None = None,
) -> Objective:
    """Return the loss of zero-shot classification. The iterate with the largest margin is kept for both losses.

    Args:
        eye: the model.
        prototypes: one unit-norm embedding per class.
        labels: the class of each picture.
        loss: "margin" (the best wrong cosine minus the own) or "ce" (cross-entropy of `scale` times the cosines).
        scale: logit scale of the cross-entropy.
        change: a defence that the attack goes through.
    """

    def objective(pixels: Pixels, rows: Tensor) -> Scored:
        unit, own = eye.look(pixels, change).unit, labels[rows]
        margin = margins(unit, prototypes, own)
        if loss == "margin":
            return margin, margin
        logits = scale * unit @ prototypes.to(unit).T
        return F.cross_entropy(logits, own.to(logits.device), reduction="none"), margin

    return objective


def feature(eye: Eye, clean: Float[Tensor, "sample d"]) -> Objective:
    """Return |f(x') - f(x)|^2 of embeddings before they are normalised, as FARE has it (2402.12336).

    Args:
        eye: the model.
        clean: embeddings of the clean pictures, not normalised.
    """

    def objective(pixels: Pixels, rows: Tensor) -> Scored:
        raw = eye.look(pixels).raw
        moved = (raw - clean[rows].to(raw)).square().sum(1)
        return moved, moved

    return objective


def caption(eye: Eye, targets: Float[Tensor, "sample d"]) -> Objective:
    """Return the cosine with the unit-norm embedding of another caption, one per picture."""

    def objective(pixels: Pixels, rows: Tensor) -> Scored:
        unit = eye.look(pixels).unit
        cosine = (unit * targets[rows].to(unit)).sum(1)
        return cosine, cosine

    return objective


def class_untargeted(eye: Eye, latents: Bool[Tensor, " d_sae"], clean: Float[Tensor, "sample pos d_sae"]) -> Objective:
    """Return |mask (u(x') - u(x))|^2 over the pre-activations u of the latents of a class (ours).

    Args:
        eye: the model with its dictionary.
        latents: mask of the latents of the class.
        clean: pre-activations of the clean pictures.
    """
    return _class_distance(eye, latents, clean, 1.0)


def class_targeted(eye: Eye, latents: Bool[Tensor, " d_sae"], goal: Float[Tensor, "sample pos d_sae"]) -> Objective:
    """Return -|mask (u(x') - u(goal))|^2 over the pre-activations u of the latents of a class (ours).

    Args:
        eye: the model with its dictionary.
        latents: mask of the latents of the class.
        goal: pre-activations to reach: those of another picture, or of a caption.
    """
    return _class_distance(eye, latents, goal, -1.0)


def _class_distance(eye: Eye, latents: Tensor, other: Tensor, sign: float) -> Objective:
    kept = torch.nonzero(latents)[:, 0]
    there = other[..., kept]

    def objective(pixels: Pixels, rows: Tensor) -> Scored:
        pre = eye.look(pixels).pre
        moved = sign * (pre[..., kept.to(pre.device)] - there[rows].to(pre)).square().sum((1, 2))
        return moved, moved

    return objective
