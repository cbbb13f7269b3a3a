"""Compute embeddings with parts of a dictionary's reconstruction removed: classes of latents, or the error term."""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.edits import LatentSteering, ablate, scale
from cliplens.edits.latent_steering import rescales_rows
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower
from cliplens.sae import Dictionary
from cliplens.sites import SIDE_OF, Modality, Site

Baseline = Literal["mean", "zero"]
EMBEDDING = "hook_embedding"
_ONE_POSITION = ("auto", "cls", "eot")


@torch.no_grad()
def embed_without(
    clip: HookedCLIP,
    dictionary: Dictionary,
    modality: Modality,
    inputs: Float[Tensor, "sample channel height width"] | Int[Tensor, "sample context"],
    parts: Bool[np.ndarray, "part d_sae"],
    cases: Bool[np.ndarray, "case part_and_error"],
    *,
    reference: Float[Tensor, "reference channel height width"] | Int[Tensor, "reference context"] | None = None,
    baseline: Baseline = "mean",
    forward_batch: int = 64,
) -> Float[Tensor, "case sample d_embed"]:
    """Return unit-norm embeddings of samples, once per case, with the parts of that case removed.

    An activation is x = bias + the sum over latents of code * decoder row + error. Removing a part replaces its summand
    by the mean of that summand over the reference samples, or by 0. If a case removes all latents and the error, all
    samples have exactly the same activation. If it removes nothing, activations do not change.

    A dictionary of CLS or EOT rows changes that position only; any other dictionary changes all positions.

    Args:
        clip: the model.
        dictionary: a dictionary of a site of this tower.
        modality: modality of the tower.
        inputs: preprocessed images [sample, 3, height, width] or token ids [sample, context].
        parts: sets of latents. Sets that are removed together in one case must not overlap.
        cases: mask of the parts that each case removes; the last column is the error term.
        reference: inputs to compute the means over; None takes `inputs`.
        baseline: "mean" or "zero".
        forward_batch: samples per forward pass.

    Raises:
        InputError: the dictionary reads no site of this tower, or `cases` has another number of columns than parts + 1.
    """
    if cases.shape[1] != len(parts) + 1:
        raise InputError(
            expected=f"{len(parts) + 1} columns per case, one per part and one for the error term",
            found=f"{cases.shape[1]} columns",
            fix="pass cases of shape [case, part + 1]",
        )
    runner = _Runner(clip, dictionary, site_of(dictionary, modality), parts, forward_batch)
    means = runner.means(inputs if reference is None else reference, baseline)
    return torch.cat([runner.embedded(batch, cases, means) for batch in runner.cut(inputs)], dim=1)


@torch.no_grad()
def sample_codes(
    clip: HookedCLIP,
    dictionary: Dictionary,
    modality: Modality,
    inputs: Float[Tensor, "sample channel height width"] | Int[Tensor, "sample context"],
    *,
    forward_batch: int = 64,
) -> Float[Tensor, "sample d_sae"]:
    """Return the codes of samples: the maximum over positions, if the dictionary reads several.

    Args:
        clip: the model.
        dictionary: a dictionary of a site of this tower.
        modality: modality of the tower.
        inputs: preprocessed images or token ids.
        forward_batch: samples per forward pass.

    Raises:
        InputError: the dictionary reads no site of this tower.
    """
    nothing = np.zeros((0, dictionary.d_sae), dtype=bool)
    runner = _Runner(clip, dictionary, site_of(dictionary, modality), nothing, forward_batch)
    found = []
    for batch in runner.cut(inputs):
        acts = runner.acts(batch)
        found.append(runner.codes(acts.flatten(0, 1)).unflatten(0, acts.shape[:2]).amax(1))
    return torch.cat(found)


def site_of(dictionary: Dictionary, modality: Modality) -> Site:
    """Return the site of a dictionary for a modality; the final embedding if its provenance is unknown.

    Raises:
        InputError: the dictionary does not read that modality.
    """
    source = dictionary.provenance
    names = source.sites if source else ()
    sites = [Site.parse(name) for name in names] or [Site(SIDE_OF[modality], EMBEDDING)]
    for site in sites:
        if site.modality == modality:
            return site
    raise InputError(
        expected=f"a dictionary that reads {modality}s",
        found=f"a dictionary of {', '.join(map(str, sites))}",
        fix="make a run of both towers: cliplens run --tower both",
    )


class _Runner:
    """Runs one tower with parts of the reconstruction at one site removed."""

    def __init__(
        self, clip: HookedCLIP, dictionary: Dictionary, site: Site, parts: Bool[np.ndarray, "part d_sae"], size: int
    ) -> None:
        self._clip, self._dictionary, self._site, self._size = clip, dictionary, site, size
        self._tower: HookedTower = clip.towers[site.side]
        self._parts = np.concatenate([parts, np.ones((1, dictionary.d_sae), dtype=bool)])
        token = dictionary.provenance.token if dictionary.provenance else "auto"
        has_place = site.side == "text" or self._tower.has_class_token
        self._one_position = token in _ONE_POSITION and has_place

    def cut(self, inputs: Tensor) -> Iterator[Tensor]:
        for start in range(0, len(inputs), self._size):
            yield inputs[start : start + self._size].to(self._clip.device)

    def means(self, reference: Tensor, baseline: Baseline) -> tuple[Tensor, Tensor]:
        """Return the replacement of each part (last row: of all latents), and the activation with all removed."""
        parts: Tensor | None = None
        whole: Tensor | None = None
        for batch in self.cut(reference):
            acts, summands = self._read(batch)
            target = acts if baseline == "mean" else self._rebuilt(acts) - summands[-1]
            here, there = summands.double().sum(1), target.double().sum(0)
            parts = here if parts is None else parts + here
            whole = there if whole is None else whole + there
        assert parts is not None and whole is not None  # noqa: PT018
        count = len(reference)
        return parts / count * (baseline == "mean"), whole / count

    def embedded(self, batch: Tensor, cases: Bool[np.ndarray, "case part"], means: tuple[Tensor, Tensor]) -> Tensor:
        acts, summands = self._read(batch)
        of_part, whole = means
        own = acts.double()
        change = of_part[:, None] - summands.double()
        error = whole - own - change[-1]
        covered = self._parts[:-1]
        found = []
        for case in cases:
            removed, with_error = np.flatnonzero(case[:-1]), bool(case[-1])
            if not len(removed) and not with_error:
                moved = own
            elif with_error and covered[removed].any(0).all():
                moved = whole.expand_as(own)
            else:
                moved = own + change[torch.as_tensor(removed)].sum(0) + (error if with_error else 0.0)
            found.append(self._finish(batch, moved))
        return torch.stack(found)

    def _read(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return activations [sample, pos, d] and the summand of each part [part, sample, pos, d]."""
        acts = self.acts(batch)
        return acts, self._summands(acts)

    def acts(self, batch: Tensor) -> Float[Tensor, "sample pos d"]:
        acts = self._tower.read(batch, [self._site.hook])[self._site.hook].flatten(2)
        if self._one_position and acts.shape[1] > 1:
            acts = acts[torch.arange(len(acts)), self._tower.special_position(batch)][:, None]
        return acts

    def _summands(self, acts: Float[Tensor, "sample pos d"]) -> Float[Tensor, "part sample pos d"]:
        rows = acts.flatten(0, 1)
        if rescales_rows(self._dictionary):
            found = [
                rows - self._steered(rows, [ablate(np.flatnonzero(p))]) if p.any() else 0 * rows for p in self._parts
            ]
        else:
            codes = self.codes(rows)
            decoder = self._dictionary.decoder_of(self._site.modality).to(codes)
            found = [codes[:, p] @ decoder[p] for p in torch.as_tensor(self._parts)]
        return torch.stack(found).unflatten(1, acts.shape[:2])

    def codes(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d_sae"]:
        codes: Tensor = self._reader.encode(rows.to(self._reader.W_dec))
        return codes.to_dense() if codes.is_sparse else codes

    @cached_property
    def _reader(self) -> Any:
        reader = self._dictionary.folded(self._site.modality)
        reader.turn_off_forward_pass_hook_z_reshaping()  # Rows are flat here: heads are concatenated.
        return reader

    def _rebuilt(self, acts: Float[Tensor, "sample pos d"]) -> Float[Tensor, "sample pos d"]:
        return self._steered(acts.flatten(0, 1), [scale([0], 1.0)], error_term=False).view_as(acts)

    def _steered(self, rows: Tensor, edits: Any, *, error_term: bool = True) -> Tensor:
        steering = LatentSteering(self._dictionary, edits, use_error_term=error_term)
        return steering.rows(rows.to(self._dictionary.sae.W_dec.dtype), self._site.modality)

    def _finish(self, batch: Tensor, moved: Float[Tensor, "sample pos d"]) -> Float[Tensor, "sample d_embed"]:
        """Compute the embeddings from new activations at the site."""
        if self._site.hook == EMBEDDING:
            embedded = moved.flatten(1)
        else:
            places = self._tower.special_position(batch) if self._one_position else None
            hook = partial(_put, moved=moved, places=places)
            encode = self._clip.encode_image if self._site.modality == "image" else self._clip.encode_text
            with self._clip.hooks(fwd_hooks=[(str(self._site), hook)]):
                embedded = encode(batch, normalize=True).flatten(1).double()
        return torch.nn.functional.normalize(embedded, dim=1)


def _put(activation: Tensor, hook: Any, *, moved: Tensor, places: Tensor | None) -> Tensor:
    if places is None or activation.shape[1] == 1:
        return moved.to(activation).reshape(activation.shape)
    changed = activation.clone()
    changed[torch.arange(len(changed)), places] = moved[:, 0].to(activation).reshape(changed[:, 0].shape)
    return changed
