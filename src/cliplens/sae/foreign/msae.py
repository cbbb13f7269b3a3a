"""MSAE: {"model", "mean_center", "scaling_factor", "target_norm"}; activation and options in the file name.

    y = (x - mean) s;  codes = act((y - pre_bias) E + latent_bias);  out = (codes D + pre_bias) / s + mean

Mean and scale are folded into the weights. File names read `<latents>_<inputs>_<activation>[_<k>][_UW|_RW]_<tied>_
<normalize>_<soft cap>_<data>.pth`. Matryoshka dictionaries are read as their authors' loader reads them: one TopK.
TopK without ReLU differs from SAELens' only in rows with fewer than k positive pre-activations.
"""

import re
from typing import Any

import torch
from torch import Tensor

from cliplens.errors import InputError
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported

_NAME = re.compile(
    r"^\d+_\d+_(?P<activation>[A-Za-z]+)(_(?P<number>\d+))?(_(UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<cap>[\d.]+)(_|\.pt)"
)


class MSAE(ForeignLayout):
    """Dictionaries of WolodjaZ/MSAE."""

    name = "msae"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """A model with pre_bias and latent_bias, and the data's mean and scale."""
        model = checkpoint.content.get("model", {})
        return {"encoder", "pre_bias", "latent_bias"} <= model.keys() and "scaling_factor" in checkpoint.content

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Standard or topk."""
        asked = _NAME.match(checkpoint.path.name)
        if asked is None:
            raise InputError(
                expected="an MSAE file under the name its training gave it, which holds its activation",
                found=checkpoint.path.name,
                fix="give it that name again, for example 4096_512_TopKReLU_64_False_False_0.0_data.pth",
            )
        if float(asked["cap"]) > 0:
            raise unsupported(self.name, f"codes bent by a soft cap at {asked['cap']}")
        architecture, fields = _activation(asked["activation"], asked["number"])
        if asked["normalize"] == "True":
            fields["normalize_activations"] = "layer_norm"
        return SaeSpec(architecture, _folded(checkpoint.content, layer_norm=asked["normalize"] == "True"), fields)


def _activation(name: str, number: str | None) -> tuple[str, dict[str, Any]]:
    if name == "ReLU":
        return "standard", {}
    if name in ("TopK", "TopKReLU"):
        return "topk", {"k": int(number or 0)}
    raise unsupported("msae", f"the activation {name}")


def _folded(content: Any, *, layer_norm: bool) -> dict[str, Tensor]:
    model = content["model"]
    mean, scale = torch.as_tensor(content["mean_center"]), float(content["scaling_factor"])
    encoder, decoder = model["encoder"], model.get("decoder")
    decoder = encoder.T if decoder is None else decoder
    if layer_norm and (scale != 1 or bool(mean.any())):
        raise unsupported("msae", "a mean or scale of the data before a layer norm")
    return {
        "W_enc": encoder * scale,
        "b_enc": model["latent_bias"],
        "W_dec": decoder / scale,
        "b_dec": model["pre_bias"] / scale + mean,
    }
