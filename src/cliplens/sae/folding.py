"""Fold the mean of a modality into the weights of a dictionary.

A dictionary trained on centred activations computes `encode(x - mean)`. A stock SAE can include one mean only, so each
modality gets a copy of the dictionary with the mean in its biases. The copy reads raw activations and returns raw
reconstructions. The tensors that change depend on the architecture and on `apply_b_dec_to_input`:

| architecture                     | reads `x - b_dec` | reads `x`                                                     |
|----------------------------------|-------------------|---------------------------------------------------------------|
| standard, jumprelu, topk family  | `b_dec += mean`   | `b_dec += mean`, `b_enc -= mean @ W_enc`                      |
| gated                            | `b_dec += mean`   | also `b_gate -= mean @ W_enc`, `b_mag` with `W_enc * e^r_mag` |
| matching pursuit                 | `b_dec += mean`   | `b_dec = mean`, which then is applied to the input            |

BatchTopK and Matryoshka dictionaries are saved as JumpReLU. A mean cannot be folded through layer norm or constant-norm
rescaling, because they are not affine.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import SAE
from sae_lens.saes.gated_sae import GatedSAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE
from sae_lens.saes.standard_sae import StandardSAE
from sae_lens.saes.topk_sae import TopKSAE
from torch import Tensor

from cliplens.errors import InputError
from cliplens.sae.building import build_from_tensors
from cliplens.sites import Modality

Means = Mapping[Modality, Float[Tensor, " d_in"]]
NOT_AFFINE = ("layer_norm", "constant_norm_rescale")
_FOLDABLE = (StandardSAE, GatedSAE, JumpReLUSAE, TopKSAE, MatchingPursuitSAE)


def folded(sae: "SAE[Any]", mean: Float[Tensor, " d_in"] | None) -> "SAE[Any]":
    """Return a copy of a dictionary that reads and writes raw activations.

    `folded(sae, mean).encode(x)` equals `sae.encode(x - mean)`, and its reconstruction is larger by `mean`, both up to
    the rounding of one addition. Sums are computed in float64 and rounded once, so weights are the same on every
    machine.

    Args:
        sae: the dictionary; tensors that do not change are shared with it.
        mean: the mean that was subtracted in training; None only makes a copy with its own hooks and config.

    Raises:
        InputError: means cannot be folded into this architecture or its input normalisation.
    """
    state = dict(sae.state_dict())
    cfg = copy.deepcopy(sae.cfg)
    if mean is not None:
        check_foldable(sae)
        state.update(_shifted(sae, mean.detach().to(sae.W_dec.device, torch.float64)))
        if isinstance(sae, MatchingPursuitSAE):
            cfg.apply_b_dec_to_input = True
    return build_from_tensors(type(sae), cfg, state)


def side_of(sae: "SAE[Any]", modality: Modality) -> "SAE[Any]":
    """Return the SAE of one modality: the dictionary itself, unless it has separate parts per modality."""
    return sae.for_modality(modality) if hasattr(sae, "for_modality") else sae


def mean_of(means: Means | None, modality: Modality, d_in: int) -> Float[Tensor, " d_in"] | None:
    """Return the mean of a modality: None without centring, zeros for a modality without a mean."""
    if means is None:
        return None
    if modality not in means:
        return next(iter(means.values())).new_zeros(d_in)
    return means[modality]


def folded_for(sae: "SAE[Any]", means: Means | None, modality: Modality) -> "SAE[Any]":
    """Return the copy of a dictionary that reads raw activations of one modality."""
    return folded(side_of(sae, modality), mean_of(means, modality, int(sae.cfg.d_in)))


def check_foldable(sae: "SAE[Any]") -> None:
    """Check that a mean can be folded into a dictionary.

    Raises:
        InputError: its class or its input normalisation does not allow it; the message names it.
    """
    if not isinstance(sae, _FOLDABLE) and not hasattr(sae, "shifted"):
        raise InputError(
            expected=f"an architecture a mean can be folded into ({', '.join(c.__name__ for c in _FOLDABLE)})",
            found=f"{type(sae).__name__}",
            fix="train without centring (centre=False), or add to its class a method shifted(mean) that returns the"
            " changed tensors",
        )
    check_affine_normalisation(sae.cfg)


def check_affine_normalisation(cfg: Any) -> None:
    """Check that a mean can be folded through the input normalisation of a config.

    Raises:
        InputError: normalize_activations is layer_norm or constant_norm_rescale.
    """
    if cfg.normalize_activations in NOT_AFFINE:
        raise InputError(
            expected="an affine input normalisation, so that means can be folded into the weights",
            found=f"normalize_activations={cfg.normalize_activations!r}",
            fix="use 'none' or 'expected_average_only_in', or train without centring (centre=False)",
        )


def _shifted(sae: "SAE[Any]", mean: Float[Tensor, " d_in"]) -> dict[str, Tensor]:
    """Return the changed tensors, in the dtype of the dictionary."""
    if hasattr(sae, "shifted"):
        return {name: tensor.to(sae.dtype) for name, tensor in sae.shifted(mean).items()}
    if sae.cfg.apply_b_dec_to_input:
        changed = {"b_dec": sae.b_dec.double() + mean}
    elif isinstance(sae, MatchingPursuitSAE):
        changed = {"b_dec": mean}
    else:
        changed = {"b_dec": sae.b_dec.double() + mean, **_shifted_encoder(sae, mean)}
    return {name: tensor.detach().to(sae.dtype).contiguous() for name, tensor in changed.items()}


def _shifted_encoder(sae: "SAE[Any]", mean: Float[Tensor, " d_in"]) -> dict[str, Tensor]:
    shift = mean @ sae.W_enc.detach().double()
    if isinstance(sae, GatedSAE):
        return {"b_gate": sae.b_gate.double() - shift, "b_mag": sae.b_mag.double() - shift * sae.r_mag.double().exp()}
    return {"b_enc": sae.b_enc.double() - shift}
