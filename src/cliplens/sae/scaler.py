"""Fold the scaling of activations that SAELens estimates in training into the weights of a dictionary.

SAELens folds it itself at the end of training. A checkpoint from before the end, or a dictionary of an early version,
reads activations that were scaled or whitened outside it: on activations as they are its codes are wrong.
"""

from pathlib import Path
from typing import Any

from sae_lens import SAE
from sae_lens.constants import ACTIVATION_SCALER_CFG_FILENAME
from sae_lens.training.activation_scaler import ActivationScaler

from cliplens.errors import DamagedError, InputError

_OUTSIDE = ("expected_average_only_in", "covariance_whitening")


def fold_scaler(sae: "SAE[Any]", folder: Path | None) -> None:
    """Fold the scaling that lies beside a dictionary into its weights, in place; do nothing where it needs none.

    Raises:
        InputError: the dictionary reads scaled activations, and the scaling is not beside it.
        DamagedError: the file of the scaling cannot be read.
    """
    if sae.cfg.normalize_activations not in _OUTSIDE:
        return
    scaler = ActivationScaler()
    file = None if folder is None else folder / ACTIVATION_SCALER_CFG_FILENAME
    if file is not None and file.is_file():
        try:
            scaler.load(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                expected=f"the scaling of activations in {file}", found=str(error)[:200], fix="copy it again"
            ) from error
    if scaler.scaling_factor is not None:
        sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
    elif scaler.whitening is not None:
        whitening = scaler.whitening
        sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
    else:
        place = "released with it" if folder is None else f"in {folder}"
        raise InputError(
            expected="a dictionary that reads activations as they are",
            found=f"normalize_activations={sae.cfg.normalize_activations!r}, a scaling that is not {place}",
            fix="fold it in where the dictionary was made: sae.fold_activation_norm_scaling_factor(factor), then"
            " sae.save_model(folder); for a mean norm m of the activations the factor is sqrt(d_in) / m",
        )
