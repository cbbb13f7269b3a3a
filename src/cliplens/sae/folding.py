"""Fold a modality's mean into a dictionary's weights.

A dictionary trained on centred activations computes `encode(x - mean)`. Two means do not fit into one stock SAE, so
each modality gets its own copy of the dictionary whose biases carry the mean: the copy reads raw activations and writes
raw reconstructions. Which tensors change depends on the architecture and on `apply_b_dec_to_input`:

| architecture                     | reads `x - b_dec` | reads `x`                                                     |
|----------------------------------|-------------------|---------------------------------------------------------------|
| standard, jumprelu, topk family  | `b_dec += mean`   | `b_dec += mean`, `b_enc -= mean @ W_enc`                      |
| gated                            | `b_dec += mean`   | also `b_gate -= mean @ W_enc`, `b_mag` with `W_enc * e^r_mag` |
| matching pursuit                 | `b_dec += mean`   | `b_dec = mean`, which then is applied to the input            |

BatchTopK and Matryoshka dictionaries are saved as JumpReLU. Layer norm and constant-norm rescaling are not affine, so
no mean can be folded through them.
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
    the rounding of one addition. Sums are taken in float64 and rounded once, so the same mean gives the same weights on
    every machine.

    Args:
        sae: the dictionary; tensors that do not change are shared with it.
        mean: the mean that was taken from the activations it reads; None folds nothing and only gives the copy hooks
            and a config of its own.

    Raises:
        InputError: no mean can be folded into this architecture or its input normalisation.
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
    """Return the part of a dictionary that reads one modality: the dictionary itself, unless its class has sides."""
    return sae.for_modality(modality) if hasattr(sae, "for_modality") else sae


def mean_of(means: Means | None, modality: Modality, d_in: int) -> Float[Tensor, " d_in"] | None:
    """Return one modality's mean: None where nothing was centred, zeros for a modality that has no mean."""
    if means is None:
        return None
    if modality not in means:
        return next(iter(means.values())).new_zeros(d_in)
    return means[modality]


def folded_for(sae: "SAE[Any]", means: Means | None, modality: Modality) -> "SAE[Any]":
    """Return the copy of a dictionary that reads raw activations of one modality."""
    return folded(side_of(sae, modality), mean_of(means, modality, int(sae.cfg.d_in)))


def check_foldable(sae: "SAE[Any]") -> None:
    """Refuse a dictionary no mean can be folded into.

    Raises:
        InputError: its class or its input normalisation does not allow it; the message names which.
    """
    if not isinstance(sae, _FOLDABLE) and not hasattr(sae, "shifted"):
        raise InputError(
            expected=f"an architecture a mean can be folded into ({', '.join(c.__name__ for c in _FOLDABLE)})",
            found=f"{type(sae).__name__}",
            fix="train without centring (centre=False), or give the class a method shifted(mean) that returns the"
            " changed tensors",
        )
    refuse_not_affine(sae.cfg)


def refuse_not_affine(cfg: Any) -> None:
    """Refuse a config whose input normalisation no mean can be folded through.

    Raises:
        InputError: normalize_activations is layer_norm or constant_norm_rescale.
    """
    if cfg.normalize_activations in NOT_AFFINE:
        raise InputError(
            expected="an input normalisation that is affine, so that each modality's mean folds into the weights",
            found=f"normalize_activations={cfg.normalize_activations!r}",
            fix="use 'none' or 'expected_average_only_in', or train without centring (centre=False)",
        )


def _shifted(sae: "SAE[Any]", mean: Float[Tensor, " d_in"]) -> dict[str, Tensor]:
    """Return the tensors that carry the mean, in the dictionary's own dtype."""
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
