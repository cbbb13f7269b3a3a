"""Convert a trained dictionary to the SAE that SAELens saves for inference."""

from typing import Any

import torch
from sae_lens import SAE
from sae_lens.saes.sae import TrainingSAE

from cliplens.sae.building import build_from_config


@torch.no_grad()
def inference(sae: "TrainingSAE[Any]") -> "SAE[Any]":
    """Return the SAE that `save_inference_model` followed by `load_from_disk` would return.

    It shares no tensor with `sae`.
    """
    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    return build_from_config(sae.cfg.get_inference_sae_cfg_dict(), state).to(sae.device)
