"""Read the vision tower in a folder of a multimodal language model, without the language model."""

from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from torch import Tensor

from cliplens.errors import InputError
from cliplens_hooks.models.hf_conversion import VISION_ONLY

_HOLDER, _INNER = "vision_tower.", "vision_model."


def tower_inside(folder: Path, config: Any) -> Any:
    """Return the CLIP or SigLIP vision tower of a saved model such as LLaVA; None if it has none.

    Raises:
        InputError: the folder contains no safetensors, or not all weights of the tower.
    """
    vision = getattr(config, "vision_config", None)
    if getattr(vision, "model_type", None) not in VISION_ONLY or not folder.is_dir():
        return None
    tower = transformers.AutoModel.from_config(vision)
    wanted = tower.state_dict()
    found = {_named_as(wanted, name): tensor for name, tensor in _weights(folder).items()}
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise InputError(
            expected=f"the weights of a {type(tower).__name__} in safetensors files in {folder}",
            found=f"{len(missing)} of {len(wanted)} missing, such as {missing[0]}",
            fix="save the whole model there with model.save_pretrained(folder)",
        )
    tower.load_state_dict({name: found[name] for name in wanted})
    return tower.eval()


def _weights(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  it is no mapping
                _, held, own = name.partition(_HOLDER)
                if held:
                    found[own] = opened.get_tensor(name)
    return found


def _named_as(wanted: dict[str, Tensor], name: str) -> str:
    """Return the name with or without `vision_model.`, as this version of transformers has it."""
    other = name.removeprefix(_INNER) if name.startswith(_INNER) else _INNER + name
    return other if name not in wanted and other in wanted else name
