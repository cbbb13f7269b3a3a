"""Training classes of cliplens, one per file, registered with SAELens when this package is imported."""

import sys
import warnings
from types import ModuleType

from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY

from cliplens.sae.architectures.fast_batchtopk import FastBatchTopKTrainingSAE as FastBatchTopKTrainingSAE
from cliplens.sae.architectures.fast_batchtopk import (
    FastMatryoshkaBatchTopKTrainingSAE as FastMatryoshkaBatchTopKTrainingSAE,
)
from cliplens.sae.architectures.fast_topk import FastTopKTrainingSAE as FastTopKTrainingSAE
from cliplens.sae.architectures.group_sparse import GroupSparseTrainingSAE as GroupSparseTrainingSAE
from cliplens.sae.architectures.iso_energy import IsoEnergyTrainingSAE as IsoEnergyTrainingSAE
from cliplens.sae.architectures.masked_group_sparse import MaskedGroupSparseTrainingSAE as MaskedGroupSparseTrainingSAE
from cliplens.sae.architectures.ncl import NCLTrainingSAE as NCLTrainingSAE
from cliplens.sae.architectures.paired import needs_pairs as needs_pairs
from cliplens.sae.architectures.two_decoders import TwoDecodersTrainingSAE as TwoDecodersTrainingSAE


def architecture_names() -> tuple[str, ...]:
    """Return the names of every architecture that can be trained: SAELens' own, cliplens' and those other packages
    registered."""
    return tuple(sorted(SAE_TRAINING_CLASS_REGISTRY))


class _CallableModule(ModuleType):
    """Keeps `cliplens.sae.architectures()` working: it was a function before it became this package."""

    def __call__(self) -> tuple[str, ...]:
        warnings.warn(
            "cliplens.sae.architectures() is now cliplens.sae.architecture_names(); the old name will go in a later"
            " version",
            DeprecationWarning,
            stacklevel=2,
        )
        return architecture_names()


sys.modules[__name__].__class__ = _CallableModule
