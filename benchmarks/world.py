"""What the embedded models know of their world: retrieval, caption swaps, linear probes, shares of variance.

    python benchmarks/world.py [--models world world-plain] [--pairs 8192]

Prints the tables of docs/world.md. Pairs come from a seed nothing was trained on.
"""

import argparse
import platform
import time

import open_clip
import torch

from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, TEXT_ONLY, Scenes, captions, draw_scenes, render
from cliplens_hooks.models.world import NAMES, WorldModels, world_tokenizer
from cliplens_hooks.training import world_figures as figures

SEED = 500_000


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--models", nargs="+", default=list(NAMES))
    asked.add_argument("--pairs", type=int, default=8192)
    args = asked.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, open_clip {open_clip.__version__}, {platform.machine()}, 1 thread\n")
    scenes = draw_scenes(args.pairs, seed=SEED)
    speed(scenes)
    embedded = {name: of_model(name, scenes) for name in args.models}
    for side in ("image", "text"):
        by_factor(side, embedded)


def speed(scenes: Scenes) -> None:
    started = time.process_time()
    render(scenes)
    drawn = time.process_time()
    captions(scenes)
    said = time.process_time()
    print(f"pictures per second {len(scenes) / (drawn - started):,.0f}")
    print(f"captions per second {len(scenes) / (said - drawn):,.0f}\n")


def of_model(name: str, scenes: Scenes) -> figures.Embedded:
    model = WorldModels().load(name, None, device=torch.device("cpu"), dtype=torch.float32).module
    tokenizer = world_tokenizer()
    embedded = figures.embed(model, tokenizer, scenes)
    distinct = figures.distinct_scenes(256, seed=SEED + 1)
    found = figures.retrieval(figures.embed(model, tokenizer, distinct))
    swaps = figures.swap_accuracy(model, tokenizer, draw_scenes(1024, seed=SEED + 2))
    cosine = (embedded.image * embedded.text).sum(dim=1).mean()
    print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"  R@1 among 256 image to text {found[0]:.3f}, text to image {found[1]:.3f}")
    print("  caption swaps " + ", ".join(f"{factor} {share:.3f}" for factor, share in swaps.items()))
    print(f"  distance of the modality means {figures.gap(embedded):.3f}, mean cosine of true pairs {cosine:.3f}\n")
    return embedded


def by_factor(side: str, embedded: dict[str, figures.Embedded]) -> None:
    print(f"{side} embeddings".ljust(18) + "chance" + "".join(f"{name:>24}" for name in embedded))
    print(" " * 24 + "".join(f"{'probe   variance':>24}" for _ in embedded))
    probes, shares = {}, {}
    for name, found in embedded.items():
        rows = getattr(found, side)
        columns = {factor: found.scenes[factor] for factor in FACTORS}
        probes[name] = figures.probe_accuracy(rows, columns, train=len(rows) * 2 // 3)
        shares[name] = figures.variance_shares(rows, found.scenes)
    for factor in FACTORS.values():
        cells = "".join(f"{probes[name][factor.name]:>15.3f}{shares[name][factor.name]:>9.3f}" for name in embedded)
        print(f"{factor.sharing:<7}{factor.name:<11}{1 / len(factor.values):>6.3f}{cells}")
    for title, names in (("shared", SHARED), ("image", IMAGE_ONLY), ("text", TEXT_ONLY)):
        sums = "".join(f"{sum(shares[name][f] for f in names):>24.3f}" for name in embedded)
        print(f"{title:<7}{'all':<17}{sums}")
    print()


if __name__ == "__main__":
    main()
