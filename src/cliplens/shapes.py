"""Array types of the signatures, each defined once.

Axis names: batch, pos, d_model; row (a pair after a token choice), d_in, d_sae.
"""

from jaxtyping import Float, Int, Int64
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Tokens = Int[Tensor, "batch context"]
TowerInputs = Images | Tokens
"""Checked inputs of a tower: images, or token ids (of a caption, or of images)."""
Logits = Float[Tensor, "image text"]
Codes = Float[Tensor, "row d_sae"]
Decoder = Float[Tensor, "d_sae d_in"]
PerLatent = Float[Tensor, " d_sae"]
Rows = Int64[Tensor, " row"]
