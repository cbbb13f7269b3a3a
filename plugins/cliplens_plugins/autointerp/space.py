"""Samples and words in the space both towers share: unit rows, what is common to a modality taken out."""

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.records import Evidence, Exemplars
from cliplens.sites import Modality

Rows = Float[np.ndarray, "row d"]
Seen = tuple[Exemplars, Float[np.ndarray, "sample d"], Float[np.ndarray, "background d"]]


def array(acts: Float[Tensor, "row d"]) -> Rows:
    """As float64 numpy."""
    return acts.detach().cpu().double().numpy()


def unit(acts: Rows) -> Rows:
    """Each row divided by its length; zero rows stay zero."""
    return acts / np.maximum(np.linalg.norm(acts, axis=1, keepdims=True), 1e-12)


def samples(evidence: Evidence, modality: Modality) -> Seen | None:
    """The exemplars of a modality, their unit embeddings and those of the background; None where either is missing.

    Without a background the exemplars of all latents stand in for it.
    """
    exemplars = evidence.images if modality == "image" else evidence.texts
    acts = evidence.image_acts if modality == "image" else evidence.text_acts
    if exemplars is None or acts is None or not len(exemplars.pairs):
        return None
    own = unit(array(acts))
    apart = None if evidence.background_acts is None else evidence.background_acts.of(modality)
    return exemplars, own, own if apart is None or not len(apart) else unit(array(apart))


def spoken(evidence: Evidence) -> Rows | None:
    """Unit embeddings of the vocabulary about their own mean; None without a vocabulary."""
    if evidence.vocabulary_acts is None or not len(evidence.vocabulary_acts):
        return None
    acts = unit(array(evidence.vocabulary_acts))
    return unit(acts - acts.mean(axis=0)) if len(acts) > 1 else acts


def top_of(exemplars: Exemplars, latent: int) -> Int[np.ndarray, " sample"]:
    """Places of a latent's top samples, strongest first."""
    at = exemplars.at[latent]
    return at[at >= 0]


def named_from(exemplars: Exemplars, alive: Bool[np.ndarray, " d_sae"], at_least: int) -> list[int]:
    """Latents with samples enough to be named."""
    return [int(k) for k in np.flatnonzero(alive & ((exemplars.at >= 0).sum(axis=1) >= at_least))]


def direction(exemplars: Exemplars, latent: int, acts: Rows) -> Float[np.ndarray, " d"]:
    """Mean of a latent's top samples, weighted by activation."""
    fires = exemplars.at[latent] >= 0
    weights = np.abs(exemplars.values[latent][fires]) + 1e-12  # all-zero activations would leave nothing to divide by
    return np.average(acts[exemplars.at[latent][fires]], axis=0, weights=weights)


def silent(evidence: Evidence, modality: Modality, latent: int) -> Int[np.ndarray, " background"]:
    """Places in the background on which a latent does not fire; all of them where its codes are not known."""
    codes = None if evidence.background_codes is None else evidence.background_codes.of(modality)
    where = np.ones(len(evidence.background), dtype=bool)
    if codes is not None:
        fires = codes.latents.numpy() == latent
        where[codes.rows.numpy()[fires]] = False
    return np.flatnonzero(where)
