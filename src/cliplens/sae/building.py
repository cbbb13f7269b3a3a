"""Build SAELens objects from existing tensors."""

from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor


def build_from_tensors(kind: type[Any], cfg: Any, state: dict[str, Tensor]) -> Any:
    """Return an instance of a SAELens class that holds the given tensors.

    The module is created on the meta device, so no tensor is copied and no random number is drawn.

    Args:
        kind: the SAE class.
        cfg: its config; the instance keeps this object.
        state: the state dict, with the names and shapes of the class.
    """
    device = cfg.device
    cfg.device = "meta"
    built = kind(cfg)
    built.load_state_dict(state, assign=True)
    built.cfg.device = device
    built.device = torch.device(device)
    return built.requires_grad_(False)


def build_from_config(config: dict[str, Any], state: dict[str, Tensor]) -> "SAE[Any]":
    """Return the inference SAE that a config dictionary (as in `cfg.json`) describes, over these tensors."""
    kind = SAE.get_sae_class_for_architecture(config["architecture"])
    cfg = SAE.get_sae_config_class_for_architecture(config["architecture"]).from_dict(config)
    built: SAE[Any] = build_from_tensors(kind, cfg, state)
    return built
