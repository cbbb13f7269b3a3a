"""Convert MSAE: {"model", "mean_center", "scaling_factor", "target_norm"}; activation and options in the file name.

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
from cliplens.sae.foreign.activation import Activation
from cliplens.sae.foreign.layout import Checkpoint, ForeignLayout, SaeSpec, unsupported
from cliplens.sae.foreign.weights import matrix, spec_of

_NAME = re.compile(
    r"^\d+_\d+_(?P<activation>[A-Za-z]+)(_(?P<number>\d+))?(_(UW|RW))?"
    r"_(?P<tied>True|False)_(?P<normalize>True|False)_(?P<cap>[\d.]+)(_|\.pt)"
)


class MSAE(ForeignLayout):
    """Dictionaries of WolodjaZ/MSAE."""

    name = "msae"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Return whether it holds encoder, pre_bias and latent_bias, and the data's mean and scale."""
        state = checkpoint.state
        return {"encoder", "pre_bias", "latent_bias"} <= state.keys() and "scaling_factor" in checkpoint.content

    def to_spec(self, checkpoint: Checkpoint) -> SaeSpec:
        """Return a standard or topk dictionary."""
        options = _NAME.match(checkpoint.path.name)
        if options is None:
            raise InputError(
                expected="an MSAE file under the name its training gave it, which holds its activation",
                found=checkpoint.path.name,
                fix="rename it, for example to 4096_512_TopKReLU_64_False_False_0.0_data.pth",
            )
        if float(options["cap"]) > 0:
            raise unsupported(self.name, f"codes bent by a soft cap at {options['cap']}")
        normalised = options["normalize"] == "True"
        fields = {"normalize_activations": "layer_norm"} if normalised else {}
        from_file = _activation(options["activation"], options["number"])
        tensors = _with_scale(checkpoint, layer_norm=normalised)
        return spec_of(self.name, checkpoint, tensors, from_file, frozenset({"relu", "topk"}), fields)


def _activation(name: str, number: str | None) -> Activation:
    if name == "ReLU":
        return Activation("relu")
    if name in ("TopK", "TopKReLU"):
        return Activation("topk", int(number or 0))
    raise unsupported("msae", f"the activation {name}")


def _with_scale(checkpoint: Checkpoint, *, layer_norm: bool) -> dict[str, Tensor]:
    """Return the tensors with the data's mean and scale folded in."""
    content: Any = checkpoint.content
    state = checkpoint.state
    checkpoint.read.update(("mean_center", "scaling_factor"))
    mean, scale = torch.as_tensor(content["mean_center"]), float(content["scaling_factor"])
    encoder, latent_bias, pre_bias = (matrix(state, n, "msae") for n in ("encoder", "latent_bias", "pre_bias"))
    decoder = matrix(state, "decoder", "msae") if "decoder" in state else encoder.T
    if layer_norm and (scale != 1 or bool(mean.any())):
        raise unsupported("msae", "a mean or scale of the data before a layer norm")
    return {
        "W_enc": encoder * scale,
        "b_enc": latent_bias,
        "W_dec": decoder / scale,
        "b_dec": pre_bias / scale + mean,
    }
