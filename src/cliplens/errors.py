"""Define the errors that users can meet. Every message has the form `Expected X, but found Y. Fix: Z.`

CliplensError
├── InputError (ValueError)        an argument, option or file cannot be used
│   ├── UnknownNameError           unknown model, tag, hook, metric or namer; similar names are listed
│   │   └── UnknownAttributeError  (AttributeError) an object has no attribute of that name; similar names are listed
│   ├── PairsError                 the pairs cannot be read, or too many are bad
│   │   └── BadPairError           one pair cannot be used; `reason` says why
│   ├── BadPictureError            one picture cannot be opened; `reason` says why
│   └── MismatchError              two things do not fit together, such as a dictionary and a hook of another model
├── NonFiniteError (ArithmeticError)  nan or inf in activations; names the batch, the site and the first pair
├── NoEffectError (RuntimeError)   an edit cannot have any effect on the model; names the site
├── DamagedError                   a file was altered or truncated after it was written
├── UnsafeFileError                a pickle contains more than tensors
├── MachineError                   full disk, missing permission, no memory, no such device, or a folder in use
├── InternalError                  an exception that cliplens does not know; please report it
└── PluginError                    a plugin failed; names the plugin, its distribution and its error
    └── MissingExtraError          the optional dependencies of a part are not installed
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

_LISTED, _LAST_CONTROL = 6, 0x9F


def _shown(text: str) -> str:
    """The text with control characters written out: ids, captions and file names may hold codes for the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" or ord(c) > _LAST_CONTROL else repr(c)[1:-1] for c in text)


class CliplensError(Exception):
    """Base class of all errors that cliplens raises. `expected`, `found` and `fix` are the parts of the message."""

    def __init__(self, *, expected: str, found: str, fix: str) -> None:
        self.expected, self.found, self.fix = (_shown(part).strip().rstrip(".") for part in (expected, found, fix))
        super().__init__(f"Expected {self.expected}, but found {self.found}. Fix: {self.fix}.")


class InputError(CliplensError, ValueError):
    """An argument, option or file that cannot be used."""


class UnknownNameError(InputError):
    """An unknown name."""


class UnknownAttributeError(UnknownNameError, AttributeError):
    """An attribute that an object does not have."""


class PairsError(InputError):
    """Pairs that cannot be read, or too many bad pairs."""


class BadPairError(PairsError):
    """One pair that cannot be used. `reason` is the reason written to quarantine.jsonl."""

    def __init__(self, pair_id: str, reason: str) -> None:
        self.pair_id, self.reason = pair_id, reason
        super().__init__(
            expected=f"an image and a caption for pair {pair_id!r}", found=reason, fix="repair or remove the pair"
        )


class BadPictureError(InputError):
    """One picture that cannot be opened. `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(expected="a picture that can be opened", found=reason, fix="repair or replace the picture")


class MismatchError(InputError):
    """Two things that do not fit together, such as a dictionary and a hook of another width."""


class NonFiniteError(CliplensError, ArithmeticError):
    """nan or inf where finite numbers are required."""


class NoEffectError(CliplensError, RuntimeError):
    """An edit that cannot have any effect on the model."""


class DamagedError(CliplensError):
    """A file that was altered or truncated after it was written."""


class UnsafeFileError(CliplensError):
    """A pickle that contains more than tensors."""


class MachineError(CliplensError):
    """A full disk, no permission, no memory, a missing device, a lost process, or a folder in use."""


class InternalError(CliplensError):
    """An exception that cliplens does not know."""


class PluginError(CliplensError):
    """A plugin failed, or its entry point gives an object of the wrong kind."""


class MissingExtraError(PluginError):
    """A part whose optional dependencies are not installed."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name, which lists the most similar known names.

    >>> print(unknown_name("model", "ViT-B32", ["ViT-B-32", "RN50"]))
    Expected the name of a model (2 known), but found 'ViT-B32'. Fix: use one of the nearest: 'ViT-B-32'.
    """
    names = sorted(set(known))
    nearest = nearest_names(name, names)
    if nearest:
        fix = "use one of the nearest: " + ", ".join(map(repr, nearest))
    elif names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        fix = "use a known name, none of which is near: " + ", ".join(map(repr, names[:_LISTED])) + more
    else:
        fix = "leave it out: no name is known here"
    article = "an" if kind[:1].lower() in "aeio" else "a"
    return UnknownNameError(expected=f"the name of {article} {kind} ({len(names)} known)", found=repr(name), fix=fix)


def nearest_names(name: object, known: Iterable[str], count: int = 5) -> list[str]:
    """Return the known names most similar to `name`, most similar first; letter case is ignored.

    >>> nearest_names("vit-b32", ["RN50", "ViT-B-32", "ViT-B-16"])
    ['ViT-B-32', 'ViT-B-16']
    """
    by_folded = {n.casefold(): n for n in known}
    wanted = str(name).casefold()
    close = difflib.get_close_matches(wanted, by_folded, n=count, cutoff=0.4)
    holding = [n for n in by_folded if len(wanted) > 2 and wanted in n and n not in close]
    return [by_folded[f] for f in [*close, *holding][:count]]


def unknown_attribute(owner: object, name: str, elsewhere: Iterable[str] = ()) -> AttributeError:
    """Return the error for an attribute that an object does not have, which lists the most similar names.

    Args:
        owner: the object.
        name: the name that was asked for.
        elsewhere: expressions that give what the name means, such as "clip.vision.blocks"; named before similar names.
    """
    kind = type(owner).__name__
    if name.startswith("_"):  # asked by copy, pickle and notebooks, which expect the plain error
        return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)
    nearest = list(elsewhere) or nearest_names(name, (n for n in dir(owner) if not n.startswith("_") and n != name), 3)
    fix = f"use {' or '.join(nearest)}" if nearest else f"see help({kind})"
    return UnknownAttributeError(expected=f"an attribute of {kind}", found=repr(name), fix=fix)


class NearestNames:
    """A class whose objects name similar attributes where one is missing, in notebooks too."""

    if not TYPE_CHECKING:  # so that type checkers still find missing attributes

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name)
