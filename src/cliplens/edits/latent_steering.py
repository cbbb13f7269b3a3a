"""Steer through a dictionary: turn edits of codes into changes of activations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.deprecation import renamed_keywords
from cliplens.edits.edit import Edit, check_latents
from cliplens.edits.operations import apply_edit, edited_latents, needs_codes, targets_of
from cliplens.edits.steering import Steering, positions_mask
from cliplens.errors import MismatchError
from cliplens.sae import Dictionary
from cliplens.sites import Modality, Site


@dataclass(frozen=True, eq=False)
class LatentSteering(Steering):
    """Applies edits through a dictionary: x becomes x + (edited codes - codes) @ W_dec, which keeps the error term.

    With `use_error_term=False`, x becomes the reconstruction from the edited codes, without the reconstruction error.
    At dose 0, nothing changes in either case. Gradients flow through the edits.
    """

    dictionary: Dictionary
    edits: Sequence[Edit]
    dose: float = 1.0
    use_error_term: bool = True
    reference: Float[Tensor, "*ref d_sae"] | None = None
    """Codes for swap edits: one row for all samples, or one per sample."""
    at: tuple[Site, ...] = ()
    """Sites to steer; if empty, the sites on which the dictionary was trained."""

    def __post_init__(self) -> None:
        for edit in self.edits:
            check_latents(edit, self.dictionary.d_sae)

    @property
    def d_in(self) -> int:
        """Return the width of the dictionary's input."""
        return self.dictionary.d_in

    @property
    def sites(self) -> tuple[Site, ...]:
        """Return `at`, or else the sites on which the dictionary was trained."""
        if self.at or self.dictionary.provenance is None:
            return self.at
        return tuple(Site.parse(name) for name in self.dictionary.provenance.sites)

    @property
    def idle(self) -> bool:
        """Return whether the dose is 0 or there are no edits."""
        return self.dose == 0 or not self.edits

    def at_dose(self, dose: float) -> "LatentSteering":
        """Return the same edits at another dose."""
        other = replace(self, dose=dose)
        other.__dict__["_by_device"] = self._by_device  # folded copies are costly and do not depend on the dose
        return other

    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        if self.idle:
            return acts
        self._check_width(acts)
        device = acts.device
        side = self._on_device(device)
        codes = side.encode(acts, modality) if self._needs_codes else None
        columns = self._columns.to(device)
        before = (
            acts.new_zeros(*acts.shape[:-1], len(columns), dtype=side.dtype) if codes is None else codes[..., columns]
        )
        after = self._edited(before, special)
        if self.use_error_term:
            moved = after != before
            delta = side.moved_by(acts, modality, after, before, columns, codes)
            return torch.where(moved.any(-1, keepdim=True), acts + delta.to(acts.dtype), acts)
        whole = codes.clone()  # type: ignore[union-attr]  # codes are always made when the error term is dropped
        whole[..., columns] = after
        return side.decode(whole, modality).to(acts.dtype)

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
        if taken.ndim < 2:
            return taken
        samples = before.shape[0]
        if samples % len(taken):
            raise MismatchError(
                expected=f"one reference for all samples, or a reference for each of {samples} samples",
                found=f"{len(taken)} references",
                fix="pass one reference row, or one per sample",
            )
        # Models that split a picture into tiles run several consecutive rows per sample.
        taken = taken.repeat_interleave(samples // len(taken), dim=0)
        return taken[:, None] if taken.ndim == 2 else taken

    def _check_width(self, acts: Tensor) -> None:
        if acts.shape[-1] != self.d_in:
            raise MismatchError(
                expected=f"activations of width {self.d_in}, the dictionary's d_in",
                found=f"width {acts.shape[-1]}",
                fix="steer the site on which the dictionary was trained",
            )

    @cached_property
    def _needs_codes(self) -> bool:
        return (
            not self.use_error_term or rescales_rows(self.dictionary) or any(needs_codes(edit) for edit in self.edits)
        )

    @cached_property
    def _columns(self) -> Int[Tensor, " column"]:
        return torch.tensor(sorted({k for edit in self.edits for k in edited_latents(edit)}), dtype=torch.long)

    @cached_property
    def _packed(self) -> tuple[Edit, ...]:
        """The edits with latents replaced by their column in `_columns`, so that other latents are not computed."""
        column_of = {int(k): n for n, k in enumerate(self._columns)}
        return tuple(
            Edit(
                e.operation,
                tuple(column_of[k] for k in e.latents),
                e.strength,
                {**e.options, **({"targets": tuple(column_of[k] for k in targets_of(e))} if targets_of(e) else {})},
            )
            for e in self.edits
        )

    @cached_property
    def _by_device(self) -> dict[torch.device, "_DeviceDictionary"]:
        return {}

    def _on_device(self, device: torch.device) -> "_DeviceDictionary":
        if device not in self._by_device:
            moved = self.dictionary if self.dictionary.device == device else self.dictionary.to(device)
            self._by_device[device] = _DeviceDictionary(moved)
        return self._by_device[device]


# Dataclasses have no other way to accept an old name of a field.
LatentSteering.__init__ = renamed_keywords(error_term="use_error_term")(LatentSteering.__init__)  # type: ignore[method-assign]


def rescales_rows(dictionary: Dictionary) -> bool:
    """Return whether the dictionary normalises each row, so that the effect of a code depends on the row."""
    return dictionary.sae.cfg.normalize_activations in ("layer_norm", "constant_norm_rescale")


class _DeviceDictionary:
    """A dictionary on one device, with a folded copy per modality."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._folded: dict[Modality, Any] = {}
        self.dtype: torch.dtype = dictionary.sae.W_dec.dtype

    def encode(self, acts: Float[Tensor, "batch pos d_in"], modality: Modality) -> Float[Tensor, "batch pos d_sae"]:
        codes: Tensor = self._folded_copy(modality).encode(acts.to(self.dtype).flatten(0, 1))
        return codes.to_dense().unflatten(0, acts.shape[:2]) if codes.is_sparse else codes.unflatten(0, acts.shape[:2])

    def decode(self, codes: Float[Tensor, "batch pos d_sae"], modality: Modality) -> Float[Tensor, "batch pos d_in"]:
        rows: Tensor = self._folded_copy(modality).decode(codes.flatten(0, 1))
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
        """Return the change of each row; exactly 0 where no code changed."""
        if not rescales_rows(self._dictionary):
            return (after - before) @ self._dictionary.decoder_of(modality)[columns].to(self.dtype)
        assert codes is not None
        whole = codes.clone()
        whole[..., columns] = after
        old = self.decode(codes, modality)
        self.encode(acts, modality)  # each decoding needs a preceding encoding, which stores the scale of each row
        return self.decode(whole, modality) - old

    def _folded_copy(self, modality: Modality) -> Any:
        if modality not in self._folded:
            copy = self._dictionary.folded(modality)
            copy.turn_off_forward_pass_hook_z_reshaping()
            self._folded[modality] = copy
        return self._folded[modality]
