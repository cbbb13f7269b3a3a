"""What do hooks cost? Forward passes through hooked towers against the stock model.

    python benchmarks/forward.py [--model ViT-B-32] [--batch 32] [--rounds 15] [--device cuda]
    python benchmarks/forward.py --families          # one model per family instead, small batches

The weights are random. Each round runs every case once, in random order. Ratios are taken within a round; the table
gives the median over rounds with a 95 % bootstrap interval.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import cliplens
from _bench import Bench, alternate, bench, ratio
from cliplens.hooked import HookedTower

FAMILIES = (
    "ViT-B-32",
    "ViT-B-32-SigLIP2-256",
    "EVA02-B-16",
    "PE-Core-T-16-384",
    "coca_ViT-B-32",
    "ViTamin-S",
    "MobileCLIP2-S0",
    "RN50",
    "convnext_base",
    "swin_base_patch4_window7_224",
    "vit_relpos_medium_patch16_cls_224",
)


@dataclass(frozen=True)
class Case:
    """A function to time, and the name of the case that it is compared with."""

    run: Callable[[], Any]
    against: str
    reach: str = ""


def main() -> None:
    with bench(
        __file__, __doc__, model="ViT-B-32", batch=(0, "default 32, or 4 with --families"), rounds=15, families=False
    ) as b:
        batch = b.args.batch or (4 if b.args.families else 32)
        with torch.inference_mode():
            for name in FAMILIES if b.args.families else (b.args.model,):
                report(b, name, batch)


def report(b: Bench, name: str, batch: int) -> None:
    """Print the table of one model."""
    device, brief = b.args.device, b.args.families
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = cliplens.load(name, pretrained="random", device=device)
    images = torch.randn(batch, 3, *clip.vision.cfg.image_size, device=device)
    cases = vision_cases(clip.vision, images) if not brief else brief_cases(clip.vision, images)
    if not brief and clip.text is not None:
        tokens = torch.randint(1, 1000, (batch, clip.text.cfg.n_ctx), device=device)
        cases |= text_cases(clip.text, tokens)
    seconds = alternate({case: spec.run for case, spec in cases.items()}, b.args.rounds, device=device)
    b.table(
        f"{name}, batch {batch}, {len(clip.vision.hook_dict)} vision hooks ({clip.vision.level})",
        {"case": "", "ms": ".1f", "ratio": ".3f", "against": "", "reach": ""},
    )
    for case, spec in cases.items():
        b.row(case, 1e3 * median(seconds[case]), ratio(seconds[case], seconds[spec.against]), spec.against, spec.reach)


def vision_cases(tower: HookedTower, images: Tensor) -> dict[str, Case]:
    """Return the cases of a vision transformer: nothing hooked, one hook, groups of hooks, all hooks, a cut model."""
    half = tower.cfg.n_layers // 2
    hook = f"blocks.{half - 1}.hook_resid_post"
    heads = [n for n in tower.hook_dict if n.endswith((".hook_q", ".hook_k", ".hook_v", ".hook_z"))]
    patterns = [n for n in tower.hook_dict if n.endswith("hook_pattern")]
    stock, short = "vision: stock", f"vision: stock cut by hand after {half} blocks"
    return {
        stock: Case(lambda: tower.run_stock(images), stock),
        "vision: no hook": Case(lambda: tower(images), stock, "<= 1.01"),
        "vision: one residual hook, run_with_cache": Case(
            lambda: tower.run_with_cache(images, names_filter=hook), stock
        ),
        "vision: one residual hook, read": Case(lambda: tower.read(images, [hook, "hook_embedding"]), stock),
        "vision: all q, k, v, z": Case(lambda: tower.run_with_cache(images, names_filter=heads), stock),
        "vision: all patterns": Case(lambda: tower.run_with_cache(images, names_filter=patterns), stock),
        "vision: all hooks but result": Case(lambda: tower.run_with_cache(images), stock),
        "vision: all hooks": Case(lambda: tower.run_with_cache(images, names_filter=lambda name: True), stock),
        short: Case(cut(tower, images, half), short),
        f"vision: {hook}, stop_at_layer={half}": Case(
            lambda: tower.run_with_cache(images, names_filter=hook, stop_at_layer=half), short, "<= 1.02"
        ),
        f"vision: {hook}, read": Case(lambda: tower.read(images, [hook]), short, "<= 1.02"),
    }


def text_cases(tower: HookedTower, tokens: Tensor) -> dict[str, Case]:
    """Return the cases of a text tower."""
    hook = f"blocks.{tower.cfg.n_layers // 2 - 1}.hook_resid_post"
    return {
        "text: stock": Case(lambda: tower.run_stock(tokens), "text: stock"),
        "text: no hook": Case(lambda: tower(tokens), "text: stock", "<= 1.01"),
        "text: all hooks but result": Case(lambda: tower.run_with_cache(tokens), "text: stock"),
        f"text: {hook}, read": Case(lambda: tower.read(tokens, [hook]), "text: stock"),
    }


def brief_cases(tower: HookedTower, images: Tensor) -> dict[str, Case]:
    """Return three cases of any family: nothing, one hook, everything."""
    one = next(n for n in reversed(tower.hook_dict) if n.endswith(("resid_post", "hook_out")))
    return {
        "stock": Case(lambda: tower.run_stock(images), "stock"),
        "no hook": Case(lambda: tower(images), "stock", "<= 1.01"),
        f"{one}, run_with_cache": Case(lambda: tower.run_with_cache(images, names_filter=one), "stock"),
        "all hooks but result": Case(lambda: tower.run_with_cache(images), "stock"),
    }


def cut(tower: HookedTower, images: Tensor, half: int) -> Callable[[], Tensor]:
    """Return a forward of open_clip's vision transformer cut by hand: its embedding and its first blocks."""
    stock: Any = tower.stock

    def run() -> Tensor:
        x = stock._embeds(images)
        for block in stock.transformer.resblocks[:half]:
            x = block(x)
        return x

    return (
        run if isinstance(getattr(stock, "transformer", None), nn.Module) else lambda: tower(images, stop_at_layer=half)
    )


if __name__ == "__main__":
    main()
