"""Choose the training class with a sparse step for a stock config."""

from dataclasses import fields

from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

from cliplens.sae.architectures.fast_batchtopk import (
    FastBatchTopKTrainingSAEConfig,
    FastMatryoshkaBatchTopKTrainingSAEConfig,
)
from cliplens.sae.architectures.fast_paired import (
    FastGroupSparseTrainingSAEConfig,
    FastIsoEnergyTrainingSAEConfig,
    FastMaskedGroupSparseTrainingSAEConfig,
)
from cliplens.sae.architectures.fast_topk import FastTopKTrainingSAEConfig
from cliplens.sae.architectures.group_sparse import GroupSparseTrainingSAEConfig
from cliplens.sae.architectures.iso_energy import IsoEnergyTrainingSAEConfig
from cliplens.sae.architectures.masked_group_sparse import MaskedGroupSparseTrainingSAEConfig

FAST_FROM = 1024
"""Latents from which the sparse step is at least 1.5 times as fast as the stock one, for every number of firing latents
tried on a CPU. Below it, the gain is small, and weights stay bit for bit those of the stock class."""

_FASTER: dict[type[TrainingSAEConfig], type[TrainingSAEConfig]] = {
    TopKTrainingSAEConfig: FastTopKTrainingSAEConfig,
    BatchTopKTrainingSAEConfig: FastBatchTopKTrainingSAEConfig,
    GroupSparseTrainingSAEConfig: FastGroupSparseTrainingSAEConfig,
    MaskedGroupSparseTrainingSAEConfig: FastMaskedGroupSparseTrainingSAEConfig,
    IsoEnergyTrainingSAEConfig: FastIsoEnergyTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAEConfig: FastMatryoshkaBatchTopKTrainingSAEConfig,
}


def faster(config: TrainingSAEConfig) -> TrainingSAEConfig:
    """Return the config of the class with a sparse step and the same losses, or `config` if there is none.

    >>> faster(TopKTrainingSAEConfig(d_in=8, d_sae=32, k=2)).architecture()
    'fast_topk'
    """
    kind = _FASTER.get(type(config))
    if kind is None:
        return config
    return kind(**{field.name: getattr(config, field.name) for field in fields(config) if field.init})
