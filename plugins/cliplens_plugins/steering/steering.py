"""From edits to activations: what is put between two layers of a model, or between an encoder and a generator."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.errors import MismatchError
from cliplens.records import Edit
from cliplens.sae import Dictionary
from cliplens.sites import Modality, Site
from cliplens_plugins.steering import edits as making
from cliplens_plugins.steering.operations import apply_edit, needs_codes, targets_of, touched


class Steering(ABC):
    """Rewrites activations. The same object steers CLIP itself, a pipeline, a language model or a bare embedding."""

    @property
    @abstractmethod
    def d_in(self) -> int:
        """Width of the activations it rewrites."""

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """Where it belongs; empty when it does not know."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether it changes nothing: then nothing is hooked, and outputs are bit-identical."""

    @abstractmethod
    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        """New activations, in the dtype and on the device of the given ones.

        Args:
            acts: raw activations, as the model has them.
            modality: which tower they come from; picks the dictionary's mean.
            special: place of CLS or EOT in each sample; None when every position counts alike.
        """

    def rows(self, acts: Float[Tensor, "row d_in"], modality: Modality) -> Float[Tensor, "row d_in"]:
        """The same for embeddings without a position axis."""
        return self(acts[:, None], modality)[:, 0]


@dataclass(frozen=True, eq=False)
class LatentSteering(Steering):
    """Edits through a dictionary: x + (edited codes - codes) @ decoder, which keeps the error term.

    Without the error term x becomes the reconstruction from the edited codes: what the dictionary cannot say is lost.
    At dose 0 nothing happens in either case. Gradients flow through.
    """

    dictionary: Dictionary
    edits: Sequence[Edit]
    dose: float = 1.0
    error_term: bool = True
    reference: Float[Tensor, "*ref d_sae"] | None = None
    """Codes to swap with: one row for all, or one per sample."""
    at: tuple[Site, ...] = ()
    """Where to steer, if not where the dictionary says it was made."""

    def __post_init__(self) -> None:
        for edit in self.edits:
            making.check(edit, self.dictionary.d_sae)

    @property
    def d_in(self) -> int:
        """Width the dictionary reads."""
        return self.dictionary.d_in

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the dictionary was made, unless `at` says otherwise."""
        if self.at or self.dictionary.provenance is None:
            return self.at
        return tuple(Site.parse(name) for name in self.dictionary.provenance.sites)

    @property
    def idle(self) -> bool:
        """At dose 0, or with no edit."""
        return self.dose == 0 or not self.edits

    def at_dose(self, dose: float) -> "LatentSteering":
        """The same edits, more or less of them."""
        other = replace(self, dose=dose)
        other.__dict__["_by_device"] = self._by_device  # readers are costly to fold and do not depend on the dose
        return other

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        if self.idle:
            return acts
        self._check_width(acts)
        device = acts.device
        tools = self._tools(device)
        codes = tools.encode(acts, modality) if self._needs_codes else None
        columns = self._columns.to(device)
        before = (
            acts.new_zeros(*acts.shape[:-1], len(columns), dtype=tools.dtype) if codes is None else codes[..., columns]
        )
        after = self._edited(before, special)
        if self.error_term:
            moved = after != before
            delta = tools.moved_by(acts, modality, after, before, columns, codes)
            return torch.where(moved.any(-1, keepdim=True), acts + delta.to(acts.dtype), acts)
        whole = codes.clone()  # type: ignore[union-attr]  # codes are always made when the error term is dropped
        whole[..., columns] = after
        return tools.decode(whole, modality).to(acts.dtype)

    def _edited(
        self, before: Float[Tensor, "batch pos column"], special: Tensor | None
    ) -> Float[Tensor, "batch pos column"]:
        reference = self._reference_for(before)
        codes = before
        for edit in self._packed:
            where = positions_mask(edit.options.get("positions", "all"), before.shape[0], before.shape[1], special)
            at = None if where is None else where.to(before.device)
            codes = apply_edit(codes, edit, dose=self.dose, reference=reference, at=at)
        return codes

    def _reference_for(self, before: Float[Tensor, "batch pos column"]) -> Tensor | None:
        if self.reference is None:
            return None
        taken = self.reference.to(before)[..., self._columns.to(before.device)]
        return taken[:, None] if taken.ndim == 2 else taken

    def _check_width(self, acts: Tensor) -> None:
        if acts.shape[-1] != self.d_in:
            raise MismatchError(
                expected=f"activations of width {self.d_in}, the dictionary's d_in",
                found=f"width {acts.shape[-1]}",
                fix="steer the site the dictionary was made on",
            )

    @cached_property
    def _needs_codes(self) -> bool:
        return not self.error_term or rescales_rows(self.dictionary) or any(needs_codes(edit) for edit in self.edits)

    @cached_property
    def _columns(self) -> Int[Tensor, " column"]:
        return torch.tensor(sorted({k for edit in self.edits for k in touched(edit)}), dtype=torch.long)

    @cached_property
    def _packed(self) -> tuple[Edit, ...]:
        """The edits with latents counted among those touched, so that the others are never looked at."""
        place = {int(k): n for n, k in enumerate(self._columns)}
        return tuple(
            Edit(
                e.operation,
                tuple(place[k] for k in e.latents),
                e.strength,
                {**e.options, **({"targets": tuple(place[k] for k in targets_of(e))} if targets_of(e) else {})},
            )
            for e in self.edits
        )

    @cached_property
    def _by_device(self) -> dict[torch.device, "_Tools"]:
        return {}

    def _tools(self, device: torch.device) -> "_Tools":
        if device not in self._by_device:
            moved = self.dictionary if self.dictionary.device == device else self.dictionary.to(device)
            self._by_device[device] = _Tools(moved)
        return self._by_device[device]


def rescales_rows(dictionary: Dictionary) -> bool:
    """Whether the dictionary scales each row by itself, so that a code alone does not say how far it moves the row."""
    return dictionary.sae.cfg.normalize_activations in ("layer_norm", "constant_norm_rescale")


class _Tools:
    """A dictionary on one device, with a reader per modality."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._readers: dict[Modality, Any] = {}
        self.dtype: torch.dtype = dictionary.sae.W_dec.dtype

    def encode(self, acts: Float[Tensor, "batch pos d_in"], modality: Modality) -> Float[Tensor, "batch pos d_sae"]:
        codes: Tensor = self._reader(modality).encode(acts.to(self.dtype).flatten(0, 1))
        return codes.to_dense().unflatten(0, acts.shape[:2]) if codes.is_sparse else codes.unflatten(0, acts.shape[:2])

    def decode(self, codes: Float[Tensor, "batch pos d_sae"], modality: Modality) -> Float[Tensor, "batch pos d_in"]:
        rows: Tensor = self._reader(modality).decode(codes.flatten(0, 1))
        return rows.unflatten(0, codes.shape[:2])

    def moved_by(
        self,
        acts: Float[Tensor, "batch pos d_in"],
        modality: Modality,
        after: Float[Tensor, "batch pos column"],
        before: Float[Tensor, "batch pos column"],
        columns: Int[Tensor, " column"],
        codes: Float[Tensor, "batch pos d_sae"] | None,
    ) -> Float[Tensor, "batch pos d_in"]:
        """How far the edit moves each row; exactly 0 where no code changed."""
        if not rescales_rows(self._dictionary):
            return (after - before) @ self._dictionary.decoder[columns].to(self.dtype)
        assert codes is not None
        whole = codes.clone()
        whole[..., columns] = after
        old = self.decode(codes, modality)
        self.encode(acts, modality)  # decoding uses up the scale of each row that encoding kept
        return self.decode(whole, modality) - old

    def _reader(self, modality: Modality) -> Any:
        if modality not in self._readers:
            reader = self._dictionary.folded(modality)
            reader.turn_off_forward_pass_hook_z_reshaping()
            self._readers[modality] = reader
        return self._readers[modality]


@dataclass(frozen=True, eq=False)
class DirectionSteering(Steering):
    """Adds dose * direction: difference of means, a random direction, or any vector to compare a dictionary with."""

    direction: Float[Tensor, " d_in"]
    dose: float = 1.0
    positions: Any = "all"
    at: tuple[Site, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def d_in(self) -> int:
        """Length of the direction."""
        return len(self.direction)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it was told to go."""
        return self.at

    @property
    def idle(self) -> bool:
        """At dose 0."""
        return self.dose == 0

    def at_dose(self, dose: float) -> "DirectionSteering":
        """The same direction, more or less of it."""
        return replace(self, dose=dose)

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        if self.idle:
            return acts
        moved = acts + (self.dose * self.direction).to(acts)
        where = positions_mask(self.positions, acts.shape[0], acts.shape[1], special)
        return moved if where is None else torch.where(where.to(acts.device)[..., None], moved, acts)


def positions_mask(
    positions: str | Sequence[int], batch: int, length: int, special: Int[Tensor, " batch"] | None
) -> Bool[Tensor, "batch pos"] | None:
    """Where an edit applies; None is everywhere.

    Raises:
        MismatchError: CLS or EOT is asked for where there is one position only or its place is not known, or a place
            lies outside.
    """
    if positions == "all":
        return None
    places = torch.arange(length)
    if isinstance(positions, str):
        if special is None:
            raise MismatchError(
                expected="activations whose CLS or EOT position is known",
                found=f"{length} position(s) without one",
                fix="edit all positions, or count them",
            )
        is_special = places[None, :] == special.cpu()[:, None]
        return is_special if positions == "special" else ~is_special
    outside = [p for p in positions if not -length <= p < length]
    if outside:
        raise MismatchError(
            expected=f"positions from 0 to {length - 1}", found=str(outside[0]), fix="name positions that exist"
        )
    mask = torch.zeros(length, dtype=torch.bool)
    mask[list(positions)] = True
    return mask.expand(batch, length)
