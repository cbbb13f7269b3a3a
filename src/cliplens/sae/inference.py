"""A trained dictionary as SAELens saves it for use."""

from typing import Any

import torch
from sae_lens import SAE
from sae_lens.saes.sae import TrainingSAE

from cliplens.sae.making import made_from_dict


@torch.no_grad()
def inference(sae: "TrainingSAE[Any]") -> "SAE[Any]":
    """What `save_inference_model` then `load_from_disk` would give, without the disk; shares nothing with `sae`."""
    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    return made_from_dict(sae.cfg.get_inference_sae_cfg_dict(), state).to(sae.device)
