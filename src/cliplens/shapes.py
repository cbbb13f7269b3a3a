"""The shapes that recur, each said once.

Axis words: batch, pos, d_model; row (a pair after a token choice), d_in, d_sae.
"""

from jaxtyping import Float, Int, Int64
from torch import Tensor

Images = Float[Tensor, "batch channel height width"]
Tokens = Int[Tensor, "batch context"]
Residual = Float[Tensor, "batch pos d_model"]
Logits = Float[Tensor, "image text"]
Acts = Float[Tensor, "row d_in"]
Codes = Float[Tensor, "row d_sae"]
Decoder = Float[Tensor, "d_sae d_in"]
PerLatent = Float[Tensor, " d_sae"]
Rows = Int64[Tensor, " row"]
