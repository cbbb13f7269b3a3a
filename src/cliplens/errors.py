"""The errors a user can meet. Every message has one form: `Expected X, but found Y. Fix: Z.`

CliplensError
├── InputError (ValueError)        something given cannot be used as it is
│   ├── UnknownNameError           model, tag, hook, metric, namer: the nearest names are listed
│   ├── PairsError                 pairs that cannot be read, or too many bad ones
│   │   └── BadPairError           one pair that cannot be used; `reason` says why
│   ├── BadPictureError            one picture that cannot be opened; `reason` says why
│   └── MismatchError              two things that do not belong together (a dictionary and another model's hook)
├── NonFiniteError (ArithmeticError)  nan or inf in activations: names batch, site and first pair
├── NoEffectError (RuntimeError)   a model ran and an edit could not have any effect: names the site
├── DamagedError                   a file that was altered or cut since it was written
├── UnsafeFileError                a pickle that is more than tensors
├── MachineError                   a full disk, no permission, no memory, no such device, a busy folder
├── InternalError                  an exception that cliplens did not foresee: report it
└── PluginError                    somebody's plugin failed: names it, its distribution and its error
    └── MissingExtraError          a part whose optional dependencies are not installed
"""

import difflib
from collections.abc import Iterable


class CliplensError(Exception):
    """Root of every error cliplens raises on purpose. `expected`, `found` and `fix` hold the parts of the message."""

    def __init__(self, *, expected: str, found: str, fix: str) -> None:
        self.expected, self.found, self.fix = (part.strip().rstrip(".") for part in (expected, found, fix))
        super().__init__(f"Expected {self.expected}, but found {self.found}. Fix: {self.fix}.")


class InputError(CliplensError, ValueError):
    """Something given cannot be used as it is."""


class UnknownNameError(InputError):
    """A name nobody answers to."""


class PairsError(InputError):
    """Pairs that cannot be read, or too many bad ones."""


class BadPairError(PairsError):
    """One pair that cannot be used. `reason` is what quarantine.jsonl holds."""

    def __init__(self, pair_id: str, reason: str) -> None:
        self.pair_id, self.reason = pair_id, reason
        super().__init__(
            expected=f"an image and a caption for pair {pair_id!r}", found=reason, fix="mend or remove the pair"
        )


class BadPictureError(InputError):
    """One picture that cannot be opened. `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(expected="a picture that can be opened", found=reason, fix="mend or replace the picture")


class MismatchError(InputError):
    """Two things that do not belong together."""


class NonFiniteError(CliplensError, ArithmeticError):
    """nan or inf where numbers are needed."""


class NoEffectError(CliplensError, RuntimeError):
    """An edit that could not have any effect on the model that ran."""


class DamagedError(CliplensError):
    """A file altered or cut since it was written."""


class UnsafeFileError(CliplensError):
    """A pickle that holds more than tensors."""


class MachineError(CliplensError):
    """A full disk, no permission, no memory, a missing device, a lost process, or a folder in use."""


class InternalError(CliplensError):
    """An exception that cliplens did not foresee."""


class PluginError(CliplensError):
    """A plugin failed, or is not what its entry point says."""


class MissingExtraError(PluginError):
    """A part whose optional dependencies are not installed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name; it lists the known names nearest to it.

    >>> print(unknown_name("model", "ViT-B32", ["ViT-B-32", "RN50"]))
    Expected the name of a model (2 known), but found 'ViT-B32'. Fix: use one of the nearest: 'ViT-B-32'.
    """
    names = sorted(set(known))
    nearest = nearest_names(name, names)
    listed = ", ".join(repr(n) for n in nearest) if nearest else "none that is near"
    return UnknownNameError(
        expected=f"the name of a {kind} ({len(names)} known)",
        found=repr(name),
        fix=f"use one of the nearest: {listed}",
    )


def nearest_names(name: str, known: Iterable[str], count: int = 5) -> list[str]:
    """Return the known names most similar to `name`, best first. Letter case does not matter.

    >>> nearest_names("vit-b32", ["RN50", "ViT-B-32", "ViT-B-16"])
    ['ViT-B-32', 'ViT-B-16']
    """
    by_folded = {n.casefold(): n for n in known}
    folded = difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=0.4)
    return [by_folded[f] for f in folded]
