"""What an edit does to codes: one small table, every entry a pure function.

Each operation says what happens at dose d. Dose 1 is the edit as it was asked for, dose 0 changes nothing, and what
lies between is on a straight line:

| operation | code of latent k                                     | past dose 1            |
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

from cliplens.errors import InputError, unknown_name
from cliplens.records import Edit

Codes = Float[Tensor, "*at latent"]
Operation = Callable[[Tensor, Edit, float, Tensor | None], Tensor]
"""(codes of the edit's latents, the edit, dose, codes of the reference) -> new codes of the edit's latents."""


def add(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """More of the latents, whether or not they fire; negative strengths push the other way, past zero."""
    return codes + dose * edit.strength


def set_to(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """The latents at a fixed value."""
    return codes + dose * (edit.strength - codes)


def scale(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """More or less of what is there; silent latents stay silent."""
    return codes * (1.0 + dose * (edit.strength - 1.0))


def clamp(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """The latents kept between two bounds."""
    kept = codes.clamp(edit.options.get("low"), edit.options.get("high"))
    return codes + dose * (kept - codes)


def ablate(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """The latents silenced."""
    return codes * (1.0 - min(dose, 1.0))


def swap(codes: Codes, edit: Edit, dose: float, reference: Tensor | None) -> Codes:
    """The latents moved to what they are in a reference sample: z + alpha * mask * (z_ref - z)."""
    if reference is None:
        raise InputError(
            expected="codes of a reference sample, for an edit that swaps with one",
            found="none",
            fix="give reference=dictionary codes of the sample to take from",
        )
    return codes + dose * edit.strength * (reference - codes)


def replace(codes: Codes, edit: Edit, dose: float, _: Tensor | None) -> Codes:
    """The own latents silenced and the targets, which stand last, added to. Adding alone leaves the old feature in."""
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
    """The latents a `replace` adds to; none for other operations."""
    return tuple(edit.options.get("targets", ())) if edit.operation == "replace" else ()


def touched(edit: Edit) -> tuple[int, ...]:
    """Every latent whose code the edit may change, targets last."""
    targets = targets_of(edit)
    return tuple(k for k in edit.latents if k not in targets) + targets


def needs_codes(edit: Edit) -> bool:
    """Whether what the edit changes depends on the codes; adding a constant does not."""
    return edit.operation != "add" or edit.options.get("where") == "firing"


def apply_edit(
    codes: Float[Tensor, "*at d_sae"],
    edit: Edit,
    *,
    dose: float = 1.0,
    reference: Float[Tensor, "*ref d_sae"] | None = None,
    at: Bool[Tensor, "*at"] | None = None,
) -> Float[Tensor, "*at d_sae"]:
    """New codes after one edit; the given ones stay as they are.

    Args:
        codes: one row of latents per sample, or per sample and position.
        edit: what to do.
        dose: how much of it; 0 gives the codes back bit for bit.
        reference: codes to swap with, broadcast against `codes`.
        at: where to do it; None is everywhere.

    Raises:
        InputError: the edit swaps and no reference is given.
        UnknownNameError: no such operation.
    """
    if edit.operation not in OPERATIONS:
        raise unknown_name("operation", edit.operation, OPERATIONS)
    latents = torch.tensor(touched(edit), dtype=torch.long, device=codes.device)
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
    """New codes after several edits, one after the other, everywhere."""
    for edit in edits:
        codes = apply_edit(codes, edit, dose=dose, reference=reference)
    return codes
