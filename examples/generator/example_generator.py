"""A generator that draws an embedding as a bar code: one grey column per dimension.

`cliplens steer run/ --generator barcode` finds it through its entry point. A generator must draw bit-identical
pictures for the same condition and seed; this one uses the seed for the order of the columns.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens.contracts import Generator
from cliplens.errors import InputError


class BarcodeGenerator(Generator):
    """Draws each row of the condition as columns, with brightness from its smallest to its largest value."""

    name: ClassVar[str] = "barcode"

    def generate(
        self, condition: Float[Tensor, "sample d_embed"], *, seed: int, **options: Any
    ) -> Sequence[Image.Image]:
        """Return one picture per row, with one column of pixels per dimension.

        Options:
            height: pixels, 32 by default.

        Raises:
            InputError: an option is unknown.
        """
        height = options.pop("height", 32)
        if options:
            raise InputError(
                expected="no options but height", found=f"{sorted(options)}", fix="remove the other options"
            )
        rows = condition.detach().cpu().double().numpy()
        low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
        grey = (255 * (rows - low) / np.maximum(high - low, 1e-12)).round().astype(np.uint8)
        order = np.random.default_rng(seed).permutation(rows.shape[1])
        return [Image.fromarray(np.tile(row[order], (height, 1))) for row in grey]
