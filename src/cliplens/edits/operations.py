"""Compute edits, with one pure function per operation.

Dose 1 is the edit as written, and dose 0 changes nothing. Codes are linear in the dose d between the two:

| operation | code of latent k, c without the edit                 | above dose 1           |
|-----------|------------------------------------------------------|------------------------|
| add       | c + d * strength                                     | further                |
| set       | c + d * (strength - c)                               | beyond the value set   |
| scale     | c * (1 + d * (strength - 1))                         | further                |
| clamp     | c + d * (clip(c, low, high) - c)                     | beyond the bound       |
| ablate    | c * (1 - min(d, 1))                                  | stays 0                |
| replace   | own: c * (1 - min(d, 1)); target: c + d * strength   | target further         |
| swap      | c + d * strength * (reference - c)                   | beyond the reference   |
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.edits.edit import Edit
from cliplens.errors import InputError

Codes = Float[Tensor, "*at latent"]
Reference = Float[Tensor, "*ref latent"] | None
Operation = Callable[[Tensor, Edit, float, Tensor | None], Tensor]
"""Function of (codes of the edit's latents, edit, dose, codes of the reference) that returns the new codes."""


def add(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Add to the codes, whether or not the latents fire. A negative strength can make codes negative."""
    return codes + dose * edit.strength


def set_to(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Set the codes to the strength of the edit at dose 1; at smaller doses, move them towards it."""
    return codes + dose * (edit.strength - codes)


def scale(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Multiply the codes; latents that do not fire stay at 0."""
    return codes * (1.0 + dose * (edit.strength - 1.0))


def clamp(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Clip the codes to the bounds."""
    kept = codes.clamp(edit.options.get("low"), edit.options.get("high"))
    return codes + dose * (kept - codes)


def ablate(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Set the codes to 0."""
    return codes * (1.0 - min(dose, 1.0))


def swap(codes: Codes, edit: Edit, dose: float, reference: Reference) -> Codes:
    """Move the codes to those of a reference sample: z + alpha * mask * (z_ref - z)."""
    if reference is None:
        raise InputError(
            expected="codes of a reference sample for a swap",
            found="none",
            fix="pass reference=, the dictionary's codes of the reference sample",
        )
    return codes + dose * edit.strength * (reference - codes)


def replace(codes: Codes, edit: Edit, dose: float, _: Reference) -> Codes:
    """Set the codes of the own latents to 0 and add to those of the targets, which are the last columns."""
    targets = len(targets_of(edit))
    own, target = codes[..., :-targets], codes[..., -targets:]
    return torch.cat([own * (1.0 - min(dose, 1.0)), target + dose * edit.strength], dim=-1)


OPERATIONS: Mapping[str, Operation] = {
    "add": add,
    "set": set_to,
    "scale": scale,
    "clamp": clamp,
    "ablate": ablate,
    "replace": replace,
    "swap": swap,
}


def targets_of(edit: Edit) -> tuple[int, ...]:
    """Return the target latents of a `replace`; empty for other operations."""
    return tuple(edit.options.get("targets", ())) if edit.operation == "replace" else ()


def edited_latents(edit: Edit) -> tuple[int, ...]:
    """Return all latents whose codes the edit may change, targets last."""
    targets = targets_of(edit)
    return tuple(k for k in edit.latents if k not in targets) + targets


def needs_codes(edit: Edit) -> bool:
    """Return whether the change depends on the codes. That of an `add` without `where` does not."""
    return edit.operation != "add" or edit.options.get("where") == "firing"


def apply_edit(
    codes: Float[Tensor, "*at d_sae"],
    edit: Edit,
    *,
    dose: float = 1.0,
    reference: Float[Tensor, "*ref d_sae"] | None = None,
    at: Bool[Tensor, "*at"] | None = None,
) -> Float[Tensor, "*at d_sae"]:
    """Return new codes after one edit; `codes` is not modified.

    >>> import torch
    >>> apply_edit(torch.tensor([[1.0, 2.0]]), Edit("add", (1,), 4.0), dose=0.5)
    tensor([[1., 4.]])

    Args:
        codes: one row of latents per sample, or per sample and position.
        edit: the edit to apply.
        dose: factor on the edit as written; 0 returns the codes bit for bit.
        reference: codes of the reference sample for a swap, broadcast against `codes`.
        at: mask of the rows to edit; all rows by default.

    Raises:
        InputError: the edit is a swap and there is no reference.
    """
    latents = torch.tensor(edited_latents(edit), dtype=torch.long, device=codes.device)
    before = codes[..., latents]
    taken = None if reference is None else reference.to(codes)[..., latents]
    after = OPERATIONS[edit.operation](before, edit, dose, taken)
    if edit.options.get("where") == "firing":
        after = torch.where(before > 0, after, before)
    if at is not None:
        after = torch.where(at[..., None], after, before)
    edited = codes.clone()
    edited[..., latents] = after
    return edited


def apply_edits(
    codes: Float[Tensor, "*at d_sae"],
    edits: Sequence[Edit],
    *,
    dose: float = 1.0,
    reference: Float[Tensor, "*ref d_sae"] | None = None,
) -> Float[Tensor, "*at d_sae"]:
    """Return new codes after several edits, applied in order to every row."""
    for edit in edits:
        codes = apply_edit(codes, edit, dose=dose, reference=reference)
    return codes
