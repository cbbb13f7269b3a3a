"""Keep the old module names of the training classes importable, with a `DeprecationWarning`."""

import sys
from types import ModuleType

from cliplens.deprecation import deprecated_names

_PUBLIC = {
    "fast_topk": ("FastTopKTrainingSAE", "FastTopKTrainingSAEConfig"),
    "group_sparse": ("GroupSparseTrainingSAE", "GroupSparseTrainingSAEConfig", "group_penalty"),
    "iso_energy": ("IsoEnergyTrainingSAE", "IsoEnergyTrainingSAEConfig", "alignment"),
    "masked_group_sparse": ("MaskedGroupSparseTrainingSAE", "MaskedGroupSparseTrainingSAEConfig"),
    "ncl": ("NCLHeadsSAE", "NCLHeadsSAEConfig", "NCLTrainingSAE", "NCLTrainingSAEConfig", "info_nce"),
    "two_decoders": (
        "DistanceTopKSAE",
        "DistanceTopKSAEConfig",
        "TwoDecodersSAE",
        "TwoDecodersSAEConfig",
        "TwoDecodersTrainingSAE",
        "TwoDecodersTrainingSAEConfig",
        "nearness",
    ),
}


def register_old_modules() -> None:
    """Make `cliplens.sae.two_decoders` and its siblings importable; they forward to `cliplens.sae.architectures`."""
    for name, public in _PUBLIC.items():
        old, new = f"cliplens.sae.{name}", f"cliplens.sae.architectures.{name}"
        module = ModuleType(old, f"Moved to {new}.")
        module.__dict__["__getattr__"] = deprecated_names(
            old, {attribute: f"{new}:{attribute}" for attribute in public}
        )
        sys.modules[old] = module
