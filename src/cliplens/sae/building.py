"""Build SAELens objects from existing tensors."""

import copy
from dataclasses import fields
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


def build_modality(sae: Any, kind: type[Any], cfg_kind: type[Any], state: dict[str, Tensor]) -> Any:
    """Return the SAE of one modality of a dictionary with separate weights per modality. The tensors are shared.

    Args:
        sae: the dictionary of both modalities; its config has every field of `cfg_kind`.
        kind: class of the SAE to return.
        cfg_kind: class of its config.
        state: its tensors.
    """
    cfg = cfg_kind(**{f.name: copy.deepcopy(getattr(sae.cfg, f.name)) for f in fields(cfg_kind)})
    return build_from_tensors(kind, cfg, state)


def build_from_config(config: dict[str, Any], state: dict[str, Tensor]) -> "SAE[Any]":
    """Return the inference SAE that a config dictionary (as in `cfg.json`) describes, over these tensors."""
    kind = SAE.get_sae_class_for_architecture(config["architecture"])
    cfg = SAE.get_sae_config_class_for_architecture(config["architecture"]).from_dict(config)
    built: SAE[Any] = build_from_tensors(kind, cfg, state)
    return built
