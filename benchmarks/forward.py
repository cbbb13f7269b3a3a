"""What do hooks cost? Forward passes through hooked towers against the stock model.

    python benchmarks/forward.py [--model ViT-B-32] [--batch 32] [--rounds 15] [--device cuda]
    python benchmarks/forward.py --families          # one model per family instead, small batches

Random weights. In each round every case runs once, in an order drawn anew; a ratio is taken within its round, against
the case it is named after, and the table gives the median over rounds with a 95 % bootstrap interval. On a CPU the time
is the process's own (`time.process_time`, one thread), so that other work on the machine does not count.
"""

import argparse
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cliplens
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
    """Something to time, and the case it is compared with."""

    run: Callable[[], Any]
    against: str
    reach: str = ""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", default="ViT-B-32")
    asked.add_argument("--batch", type=int, default=None, help="32, or 4 with --families")
    asked.add_argument("--rounds", type=int, default=15)
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--families", action="store_true")
    args = asked.parse_args()
    torch.set_num_threads(1)
    print(header(args.device))
    with torch.inference_mode():
        for name in FAMILIES if args.families else (args.model,):
            report(name, args.batch or (4 if args.families else 32), args.rounds, args.device, brief=args.families)


def header(device: str) -> str:
    """Machine and versions."""
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "open_clip_torch", "transformer-lens", "timm"))
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{_processor()}, 1 thread"
    return f"{where}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def report(name: str, batch: int, rounds: int, device: str, *, brief: bool) -> None:
    """The table of one model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = cliplens.load(name, pretrained="random", device=device)
    images = torch.randn(batch, 3, *clip.vision.cfg.image_size, device=device)
    cases = vision_cases(clip.vision, images) if not brief else brief_cases(clip.vision, images)
    if not brief and clip.text is not None:
        tokens = torch.randint(1, 1000, (batch, clip.text.cfg.n_ctx), device=device)
        cases |= text_cases(clip.text, tokens)
    times = timed(cases, rounds, device)
    print(f"\n{name}, batch {batch}, {len(clip.vision.hook_dict)} vision hooks ({clip.vision.level}), {rounds} rounds")
    print(f"{'case':58} {'ms':>9} {'ratio':>7}   95 % interval   reach")
    for case, spec in cases.items():
        ratios = [a / b for a, b in zip(times[case], times[spec.against], strict=True)]
        low, high = interval(ratios)
        line = f"{case:58} {1e3 * statistics.median(times[case]):9.1f} {statistics.median(ratios):7.3f}"
        print(f"{line}   {low:.3f} - {high:.3f}   {spec.reach}")


def vision_cases(tower: HookedTower, images: Tensor) -> dict[str, Case]:
    """Everything design.md 9 asks of a ViT."""
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
    """The same in short for text."""
    hook = f"blocks.{tower.cfg.n_layers // 2 - 1}.hook_resid_post"
    return {
        "text: stock": Case(lambda: tower.run_stock(tokens), "text: stock"),
        "text: no hook": Case(lambda: tower(tokens), "text: stock", "<= 1.01"),
        "text: all hooks but result": Case(lambda: tower.run_with_cache(tokens), "text: stock"),
        f"text: {hook}, read": Case(lambda: tower.read(tokens, [hook]), "text: stock"),
    }


def brief_cases(tower: HookedTower, images: Tensor) -> dict[str, Case]:
    """One model per family: nothing, one hook, everything."""
    one = next(n for n in reversed(tower.hook_dict) if n.endswith(("resid_post", "hook_out")))
    return {
        "stock": Case(lambda: tower.run_stock(images), "stock"),
        "no hook": Case(lambda: tower(images), "stock", "<= 1.01"),
        f"{one}, run_with_cache": Case(lambda: tower.run_with_cache(images, names_filter=one), "stock"),
        "all hooks but result": Case(lambda: tower.run_with_cache(images), "stock"),
    }


def cut(tower: HookedTower, images: Tensor, half: int) -> Callable[[], Tensor]:
    """open_clip's vision transformer, cut by hand: its embedding and its first blocks."""
    stock: Any = tower.stock

    def run() -> Tensor:
        x = stock._embeds(images)
        for block in stock.transformer.resblocks[:half]:
            x = block(x)
        return x

    return (
        run if isinstance(getattr(stock, "transformer", None), nn.Module) else lambda: tower(images, stop_at_layer=half)
    )


def timed(cases: Mapping[str, Case], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds per case and round; every case runs once before, uncounted."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for count in range(rounds + 1):
        random.shuffle(order)
        for name in order:
            seconds = once(cases[name].run, device)
            if count:
                times[name].append(seconds)
    return times


def once(run: Callable[[], Any], device: str) -> float:
    """One run's seconds: of the process on a CPU, of the clock on an accelerator."""
    if not device.startswith("cuda"):
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


if __name__ == "__main__":
    main()
