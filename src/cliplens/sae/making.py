"""A SAELens object over tensors that are there already."""

from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor


def made_over(kind: type[Any], cfg: Any, state: dict[str, Tensor]) -> Any:
    """A dictionary of this class over these tensors: none is copied, no random number drawn in vain."""
    device = cfg.device
    cfg.device = "meta"
    made = kind(cfg)
    made.load_state_dict(state, assign=True)
    made.cfg.device = device
    made.device = torch.device(device)
    return made.requires_grad_(False)


def made_from_dict(described: dict[str, Any], state: dict[str, Tensor]) -> "SAE[Any]":
    """The inference dictionary a config describes, over these tensors."""
    kind = SAE.get_sae_class_for_architecture(described["architecture"])
    cfg = SAE.get_sae_config_class_for_architecture(described["architecture"]).from_dict(described)
    made: SAE[Any] = made_over(kind, cfg, state)
    return made
