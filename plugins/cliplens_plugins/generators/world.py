"""Generate images of the embedded world from embeddings of its default model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from cliplens.contracts import Generator
from cliplens.errors import InputError, NonFiniteError
from cliplens_plugins.generators.painter import Painter, PainterConfig, Pictures, SceneLayout
from cliplens_plugins.generators.world_prompts import long_form

WEIGHTS = Path(__file__).parent / "assets" / "world_painter.safetensors"


class WorldGenerator(Generator):
    """Flow matching, conditioned on a final embedding of the model `world`, of an image or of a caption.

    The condition is normalised first. Properties that the embedding does not encode (the positions and the tilt of the
    copies) are drawn from the seed. Row i starts from the same noise and layout in every call with the same seed, so
    two images with the same row and seed differ only by their conditions.
    """

    name: ClassVar[str] = "world"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self._weights = weights

    def long_forms(self, prompts: Sequence[str], *, seed: int) -> list[str]:
        """Return the captions of the world that say what short prompts such as "a red ring" say.

        Raises:
            InputError: a prompt has a word the world does not know, or names no shape.
        """
        return [long_form(prompt, seed=seed) for prompt in prompts]

    @cached_property
    def painter(self) -> Painter:
        """The network in float32 on the CPU, loaded on first use."""
        with safe_open(self._weights, framework="pt") as file:
            config = PainterConfig(**json.loads(file.metadata()["config"]))
        painter = Painter(config)
        painter.load_state_dict({k: v.float() for k, v in load_file(self._weights).items()})
        return painter.eval().requires_grad_(False)

    def generate(
        self, condition: Float[Tensor, "sample d_embed"], *, seed: int, **options: Any
    ) -> Sequence[Image.Image]:
        """Return one image of 48 x 48 pixels per row, bit-identical for the same rows, seed and number of threads.

        Options:
            steps: number of Euler steps, 8 by default.
            anchor: quadrant of the first copy, 0 to 3 clockwise from the upper left; drawn from the seed by default.
            tilt: tilt of the copies, 0 to 2; drawn from the seed by default.

        Raises:
            InputError: the width of the condition is not that of the model's embeddings, or an option is unknown.
            NonFiniteError: the condition contains nan, inf or an all-zero row.
        """
        unknown = sorted(options.keys() - {"steps", "anchor", "tilt"})
        if unknown:
            raise InputError(
                expected="only the options steps, anchor and tilt", found=f"{unknown}", fix="remove the other options"
            )
        unit = _unit(condition.to("cpu", torch.float32), self.painter.config.d_embed)
        noise, layout = _drawn(len(unit), seed, self.painter.config)
        for name in options.keys() & {"anchor", "tilt"}:
            layout = replace(layout, **{name: torch.full_like(layout.tilt, options[name])})
        return _to_images(sample(self.painter, unit, noise, layout, steps=options.get("steps", 8)))


@torch.no_grad()
def sample(
    painter: Painter, unit: Float[Tensor, "sample d_embed"], noise: Pictures, layout: SceneLayout, *, steps: int
) -> Pictures:
    """Integrate noise to images by Euler steps along the predicted velocity; the last step ends at the prediction."""
    state = noise
    scaled = scaled_condition(unit)
    for step in range(steps):
        time = torch.full((len(state),), step / steps)
        picture = painter(state, time, scaled, layout)
        state = state + (picture - state) / (steps - step)
    return state


def scaled_condition(unit: Float[Tensor, "sample d_embed"]) -> Float[Tensor, "sample d_embed"]:
    """Scale unit-norm embeddings to root mean square 1, as the network expects."""
    return unit * unit.shape[1] ** 0.5


def _unit(condition: Float[Tensor, "sample d_in"], d_embed: int) -> Float[Tensor, "sample d_in"]:
    if condition.shape[1] != d_embed:
        raise InputError(
            expected=f"final embeddings of the embedded model, of width {d_embed}",
            found=f"embeddings of width {condition.shape[1]}",
            fix="pass embeddings of cliplens.load('world')",
        )
    norm = condition.norm(dim=1, keepdim=True)
    bad = (~(norm.isfinite() & (norm > 0))).nonzero()[:, 0]
    if len(bad):
        raise NonFiniteError(
            expected="embeddings that are finite and not zero",
            found=f"row {int(bad[0])} with norm {float(norm[int(bad[0])])}",
            fix="check the edit that produced this row",
        )
    return condition / norm


def _drawn(n: int, seed: int, config: PainterConfig) -> tuple[Pictures, SceneLayout]:
    """Draw noise and layout row by row, so that row i does not depend on the number of rows."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        (
            torch.randn(3, config.side, config.side, generator=generator),
            torch.randint(4, (), generator=generator),
            torch.randint(config.tilts, (), generator=generator),
        )
        for _ in range(n)
    ]
    noise, anchor, tilt = (torch.stack(column) for column in zip(*rows, strict=True))
    return noise, SceneLayout(anchor, tilt)


def _to_images(pictures: Pictures) -> list[Image.Image]:
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return [Image.fromarray(picture) for picture in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
