"""Make SAELens' own training configs, with defaults for activations of a few dozen to a few thousand numbers."""

from dataclasses import fields, replace
from typing import Any

from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata, TrainingSAEConfig

from cliplens.errors import InputError, unknown_name


def dictionary_config(
    architecture: str, d_in: int, d_sae: int | None = None, *, k: int | None = None, **options: Any
) -> TrainingSAEConfig:
    """Return the training config of an architecture, an instance of SAELens' own config class.

    Args:
        architecture: a name of `architecture_names()`.
        d_in: width of the activations.
        d_sae: number of latents; None gives 4 x `d_in`.
        k: number of latents that fire per row, where the architecture has one (jumprelu: the target of its quadratic
            penalty; matching pursuit: the number of picks); None gives `d_sae / 32`, but at least 4 and at most 32.
        options: fields of that config class; they override the defaults.

    Raises:
        UnknownNameError: the architecture or a field is unknown; the message lists the nearest names.
        InputError: sizes are impossible, for example `k` above `d_sae`.

    >>> dictionary_config("topk", 64).d_sae
    256
    """
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        raise unknown_name("dictionary architecture", architecture, SAE_TRAINING_CLASS_REGISTRY)
    d_sae = 4 * d_in if d_sae is None else d_sae
    k = min(32, max(4, d_sae // 32)) if k is None else k
    _check_sizes(d_in, d_sae, k)
    kind = SAE_TRAINING_CLASS_REGISTRY[architecture][1]
    known = {f.name for f in fields(kind)}
    for name in options:
        if name not in known:
            raise unknown_name(f"field of {kind.__name__}", name, known)
    defaults = {name: value for name, value in _defaults(architecture, d_in, d_sae, k).items() if name in known}
    return kind(d_in=d_in, d_sae=d_sae, **{**defaults, **options})


def sparsity_fields(architecture: str) -> tuple[str | None, str | None]:
    """Return the config fields of an architecture for the number of firing latents and for its penalty; None = none.

    Raises:
        UnknownNameError: the architecture is unknown.

    >>> sparsity_fields("topk"), sparsity_fields("standard"), sparsity_fields("jumprelu")
    (('k', None), (None, 'l1_coefficient'), ('target_l0', 'l0_coefficient'))
    """
    if architecture not in SAE_TRAINING_CLASS_REGISTRY:
        raise unknown_name("dictionary architecture", architecture, SAE_TRAINING_CLASS_REGISTRY)
    known = {f.name for f in fields(SAE_TRAINING_CLASS_REGISTRY[architecture][1])}
    counts, penalties = ("k", "target_l0", "max_iterations"), ("l0_coefficient", "l1_coefficient")
    return next((n for n in counts if n in known), None), next((n for n in penalties if n in known), None)


def _defaults(architecture: str, d_in: int, d_sae: int, k: int) -> dict[str, Any]:
    """Return defaults by field name. The caller drops fields that the architecture does not have."""
    if architecture == "jumprelu":
        gate = {"jumprelu_init_threshold": 0.5, "jumprelu_bandwidth": 1.0, "jumprelu_ste_to_input": True}
        penalty = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": float(k), "l0_coefficient": d_in / 64}
        return {**_SCALED, **gate, **penalty}
    if architecture == "matching_pursuit":
        return {**_SCALED, "max_iterations": k, "decoder_init_norm": 1.0}
    if architecture in ("standard", "gated"):
        return {**_SCALED, "l1_coefficient": d_in**0.5 / 4}
    widths = sorted({d_sae // 16, d_sae // 4, d_sae} - {0})
    return {"k": k, "matryoshka_widths": widths}


# Penalties are absolute numbers, so inputs are scaled to a norm of sqrt(d_in). SAELens folds the factor in at the end.
_SCALED = {"normalize_activations": "expected_average_only_in"}


def with_metadata(config: TrainingSAEConfig, **changes: Any) -> TrainingSAEConfig:
    """Return a copy of the config with metadata of its own and changed fields."""
    return replace(config, metadata=SAEMetadata.from_dict(config.metadata.to_dict()), **changes)


def threshold_rate(config: TrainingSAEConfig, steps: int) -> dict[str, float]:
    """Return the config field that lets a BatchTopK threshold follow the dictionary within `steps`, or nothing.

    The threshold is a running mean that starts at 0, of a value that rises while the dictionary learns. After few steps
    it is too low, and the saved JumpReLU fires far too often. The rate is raised so that 99 % of the mean come from the
    last fifth of the steps, in which the learning rate falls and the value hardly moves.
    """
    rate = getattr(config, "topk_threshold_lr", None)
    return {} if rate is None else {"topk_threshold_lr": max(rate, 1 - 0.01 ** (5 / max(steps, 1)))}


def _check_sizes(d_in: int, d_sae: int, k: int) -> None:
    if d_in < 1 or d_sae < 1 or not 1 <= k <= d_sae:
        raise InputError(
            expected="d_in and d_sae of at least 1, and k from 1 to d_sae",
            found=f"d_sae={d_sae}, k={k}" if d_in >= 1 else f"d_in={d_in}",
            fix="choose k well below d_sae, for example d_sae / 32",
        )
