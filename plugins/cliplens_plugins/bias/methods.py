"""Methods that reduce bias, with one interface: each changes image embeddings, text embeddings, or both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.edits import Edit, LatentSteering, ablate
from cliplens.sae import Dictionary
from cliplens.sites import Modality
from cliplens.studies import ScoredClasses, linear_probe, matched_sets
from cliplens_plugins.bias.data import BiasData, Prompts
from cliplens_plugins.bias.projections import leace, off_directions, orth_cali, orth_proj
from cliplens_plugins.bias.sem import SemVariant, sem

Change = Callable[[Tensor], Tensor]
TOP = 12
"""Number of latents that methods over latents edit."""
CLASSES = ("ImgD", "TextD", "CrossD")


@dataclass(frozen=True)
class Method:
    """A fitted method. `image` and `text` map rows to rows; `images` and `texts` also normalise the result."""

    name: str
    information: str
    """The information it was fitted with: "nothing", "prompts" or "labelled images"."""
    image: Change
    text: Change
    latents: tuple[int, ...] = ()
    paraphrases: bool = False
    """Whether `texts` treats its rows as paraphrases of one sentence."""

    def images(self, rows: Float[Tensor, "*at d"]) -> Float[Tensor, "*at d"]:
        """Return changed image embeddings, of length 1."""
        return _changed(self.image, rows)

    def texts(self, rows: Float[Tensor, "*at d"]) -> Float[Tensor, "*at d"]:
        """Return changed text embeddings, of length 1."""
        return _changed(self.text, rows)

    def separate_texts(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """Return changed embeddings of texts that are no paraphrases of each other."""
        return torch.cat([self.texts(row) for row in rows.split(1)]) if self.paraphrases else self.texts(rows)


def same(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Return the rows unchanged."""
    return rows


def attribute_latents(
    codes: Float[Tensor, "image d_sae"],
    group: Int[np.ndarray, " image"],
    of: Bool[np.ndarray, " d_sae"],
    top: int = TOP,
) -> tuple[int, ...]:
    """Return the latents in `of` whose mean codes vary most between the groups, largest variance first.

    Latents whose group means are equal are left out.

    Source: S&P Top-K, arXiv 2509.10809, after descriptions and code by others.
    """
    spread = group_means(codes, group).var(0, unbiased=False).cpu().numpy()
    order = np.argsort(-np.where(of, spread, -1.0), kind="stable")[:top]
    return tuple(int(k) for k in order if of[k] and spread[k] > 0)


def group_means(codes: Float[Tensor, "image d_sae"], group: Int[np.ndarray, " image"]) -> Float[Tensor, "group d_sae"]:
    """Return the mean code of each latent in each group."""
    return torch.stack([codes[torch.as_tensor(group == g)].mean(0) for g in range(int(group.max()) + 1)])


def embedding_methods(data: BiasData) -> list[Method]:
    """Return the methods that need no dictionary: no change, Orth-Proj, Orth-Cali, and the direction of a probe."""
    prompts = data.prompts.group.mean(1)
    rows, labels = data.image[torch.as_tensor(data.train)], torch.as_tensor(data.group[data.train])
    project, calibrate = orth_proj(prompts), orth_cali(prompts, data.prompts.group_pairs)
    dense = off_directions(_directions(linear_probe(rows, labels)))
    return [
        Method("none", "nothing", same, same),
        Method("Orth-Proj", "prompts", same, partial(_times, matrix=project)),
        Method("Orth-Cali", "prompts", same, partial(_times, matrix=calibrate)),
        Method("probe direction", "labelled images", partial(_times, matrix=dense), partial(_times, matrix=dense)),
    ]


def leace_method(data: BiasData) -> Method:
    """Return LEACE, fitted on the training images. It changes image embeddings only.

    Raises:
        MissingExtraError: the package `concept-erasure` is not installed.
    """
    rows, labels = data.image[torch.as_tensor(data.train)], torch.as_tensor(data.group[data.train])
    return Method("LEACE (images)", "labelled images", leace(rows, labels), same)


def dictionary_methods(
    data: BiasData, dictionary: Dictionary, scored: ScoredClasses, *, controls: int = 3, seed: int = 0, top: int = TOP
) -> list[Method]:
    """Return the methods that use a dictionary of the final embedding.

    These are the variants of SEM; S&P Top-K with and without aggregation, with encoder and with decoder rows; ablation
    and rebalancing of the latents that carry the attribute, of all classes and of each; ablation of whole classes; and
    ablation of random latents.

    Args:
        data: embeddings, labels and prompts.
        dictionary: a dictionary of the final embeddings of both towers.
        scored: the class and firing rate of each latent.
        controls: number of random sets of latents.
        seed: seed of the random sets.
        top: number of latents that carry the attribute.
    """
    train = torch.as_tensor(data.train)
    codes = dense_codes(dictionary, data.image[train], "image")
    group = data.group[data.train]
    found = attribute_latents(codes, group, scored.alive, top)
    methods = [*_sem_methods(data.prompts, dictionary), *_top_k(dictionary, codes, group, found)]
    told = "labelled images"
    if found:
        methods.append(_latents(f"ablate top {len(found)}", told, dictionary, [ablate(found)]))
        methods.append(_rebalanced(f"rebalance top {len(found)}", dictionary, codes, group, found))
        methods += _random(dictionary, scored, found, controls, seed)
    for name in CLASSES:
        own = attribute_latents(codes, group, scored.alive & (scored.classes == name), top)
        if own:
            methods.append(_latents(f"ablate top {len(own)} of {name}", told, dictionary, [ablate(own)]))
    for name in CLASSES:
        every = np.flatnonzero(scored.classes == name)
        if len(every):
            methods.append(_latents(f"ablate all {len(every)} of {name}", "nothing", dictionary, [ablate(every)]))
    return methods


@torch.no_grad()
def dense_codes(dictionary: Dictionary, rows: Float[Tensor, "row d"], modality: Modality) -> Float[Tensor, "row d_sae"]:
    """Return the codes of embeddings."""
    reader = dictionary.folded(modality)
    reader.turn_off_forward_pass_hook_z_reshaping()
    codes: Tensor = reader.encode(rows.to(reader.W_dec))
    return codes.to_dense() if codes.is_sparse else codes


def _sem_methods(prompts: Prompts, dictionary: Dictionary) -> list[Method]:
    variants: tuple[SemVariant, ...] = ("b", "bi", "i")
    made: list[tuple[str, SemVariant, bool]] = [(f"SEM_{v}", v, False) for v in variants]
    made.append(("SEM_b, error kept", "b", True))
    return [
        Method(name, "prompts", same, sem(dictionary, prompts, v, error_kept=kept), paraphrases=v == "bi")
        for name, v, kept in made
    ]


def _top_k(
    dictionary: Dictionary, codes: Tensor, group: Int[np.ndarray, " image"], latents: tuple[int, ...]
) -> list[Method]:
    if not latents:
        return []
    weights = _directions(linear_probe(codes[:, list(latents)], torch.as_tensor(group)))
    encoder = dictionary.folded("image").W_enc.T.detach().double()[list(latents)]
    decoder = dictionary.decoder_of("image").double()[list(latents)]
    made = {
        "S&P Top-K": weights @ encoder,
        "S&P Top-K, decoder rows": weights @ decoder,
        "S&P Top-K, not aggregated": encoder,
    }
    found = []
    for name, rows in made.items():
        change = partial(_times, matrix=off_directions(rows))
        found.append(Method(name, "labelled images", change, change, latents))
    return found


def _latents(name: str, told: str, dictionary: Dictionary, edits: list[Edit]) -> Method:
    steering = LatentSteering(dictionary, edits)
    latents = tuple(k for edit in edits for k in edit.latents)
    image = partial(_steered, steering=steering, modality="image")
    return Method(name, told, image, partial(_steered, steering=steering, modality="text"), latents)


def _rebalanced(
    name: str, dictionary: Dictionary, codes: Tensor, group: Int[np.ndarray, " image"], latents: tuple[int, ...]
) -> Method:
    """Set each latent's code on images to the mean of its group means, in which every group has the same weight."""
    level = group_means(codes, group).mean(0)
    edits = [Edit("set", (k,), float(level[k])) for k in latents]
    steering = LatentSteering(dictionary, edits)
    return Method(name, "labelled images", partial(_steered, steering=steering, modality="image"), same, latents)


def _random(
    dictionary: Dictionary, scored: ScoredClasses, latents: tuple[int, ...], controls: int, seed: int
) -> list[Method]:
    mask = np.isin(np.arange(len(scored.classes)), latents)
    sets = matched_sets(mask, scored.rates, controls, seed=seed)
    return [
        _latents(f"ablate {int(s.sum())} random ({n + 1})", "nothing", dictionary, [ablate(np.flatnonzero(s))])
        for n, s in enumerate(sets)
        if s.any()
    ]


def _directions(probe: Callable[[Tensor], Tensor]) -> Float[Tensor, "direction d"]:
    """Return the directions along which a linear probe separates the classes, in the space of its inputs."""
    weight = probe.network.weight / probe.deviation  # type: ignore[attr-defined]
    return (weight[1:] - weight[:1]).detach()


def _times(rows: Float[Tensor, "row d"], *, matrix: Float[Tensor, "d d"]) -> Float[Tensor, "row d"]:
    return rows.double() @ matrix.T


def _steered(rows: Float[Tensor, "row d"], *, steering: LatentSteering, modality: Modality) -> Float[Tensor, "row d"]:
    return steering.rows(rows.to(steering.dictionary.sae.W_dec.dtype), modality)


@torch.no_grad()
def _changed(change: Change, rows: Tensor) -> Tensor:
    flat = change(rows.flatten(0, -2))
    return torch.nn.functional.normalize(flat.double(), dim=-1).view(rows.shape)
