"""Read the residual stream of every block of one random ViT with one peer; writes what it measured as JSON.

Every peer gets the same open_clip model, made from one seed, and the same pictures. The time is the CPU time of a
forward that keeps the stream after each block, divided by that of the model alone, in turns in one process.
"""

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

Read = Callable[[torch.Tensor], list[torch.Tensor]]
"""Function of pictures that returns the stream after each block, [batch, position, width]."""


def plain_hooks(model: Any) -> Read:
    """Forward hooks of PyTorch on the blocks."""

    def read(images: torch.Tensor) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        handles = [
            block.register_forward_hook(lambda module, inputs, output: kept.append(output))
            for block in model.visual.transformer.resblocks
        ]
        try:
            model.encode_image(images)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    return read


def cliplens(model: Any) -> Read:
    """Our hooked tower with `run_with_cache`."""
    import cliplens

    clip = cliplens.wrap(model, check=False)
    assert clip.vision is not None
    names = [f"blocks.{n}.hook_resid_post" for n in range(len(model.visual.transformer.resblocks))]

    def read(images: torch.Tensor) -> list[torch.Tensor]:
        _, cache = clip.vision.run_with_cache(images, names_filter=names)  # type: ignore[union-attr]
        return [cache[name] for name in names]

    return read


def nnsight(model: Any) -> Read:
    """nnsight's trace."""
    from nnsight import NNsight

    class Images(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.visual

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.visual(images)

    traced = NNsight(Images().eval())

    def read(images: torch.Tensor) -> list[torch.Tensor]:
        with traced.trace(images):
            kept = [block.output.save() for block in traced.visual.transformer.resblocks]
        return [getattr(one, "value", one) for one in kept]

    return read


PEERS = {f.__name__: f for f in (plain_hooks, cliplens, nnsight)}
PACKAGES = {"plain_hooks": "torch"}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = open_clip.create_model(asked.model).eval()
    images = torch.randn(asked.batch, 3, *_size(model), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain_hooks(model)(images)
        read = PEERS[asked.peer](model)
        apart = max(float((a - b).abs().max()) for a, b in zip(expected, read(images), strict=True))
        ratios = []
        for _ in range(asked.rounds):
            alone, hooked = (_seconds(work) for work in (lambda: model.encode_image(images), lambda: read(images)))
            ratios.append(hooked / alone)
    found = {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "largest_difference": apart,
        "version": importlib.metadata.version(PACKAGES.get(asked.peer, asked.peer)),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    Path(asked.out).write_text(json.dumps(found))


def _size(model: Any) -> tuple[int, int]:
    size = model.visual.image_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
