"""What do the embedded models encode? Retrieval, caption swaps, linear probes, and shares of variance.

    python benchmarks/world.py [--models world world-plain] [--pairs 8192]

Prints the tables of docs/world.md. The pairs come from a seed that was not used for training.
"""

import time

import torch

from _bench import Bench, bench
from cliplens.world import FACTORS, IMAGE_ONLY, SHARED, TEXT_ONLY, Scenes, captions, draw_scenes, render
from cliplens_hooks.models.world import NAMES, WorldModels, world_tokenizer
from cliplens_hooks.training import world_figures as figures

SEED = 500_000


def main() -> None:
    with bench(__file__, __doc__, models=list(NAMES), pairs=8192) as b:
        scenes = draw_scenes(b.args.pairs, seed=SEED)
        speed(b, scenes)
        embedded = {name: of_model(b, name, scenes) for name in b.args.models}
        for side in ("image", "text"):
            by_factor(b, side, embedded)


def speed(b: Bench, scenes: Scenes) -> None:
    started = time.process_time()
    render(scenes)
    drawn = time.process_time()
    captions(scenes)
    said = time.process_time()
    b.note("pictures per second", len(scenes) / (drawn - started), ",.0f")
    b.note("captions per second", len(scenes) / (said - drawn), ",.0f")


def of_model(b: Bench, name: str, scenes: Scenes) -> figures.Embedded:
    model = WorldModels().load(name, None, device=torch.device("cpu"), dtype=torch.float32).module
    tokenizer = world_tokenizer()
    embedded = figures.embed(model, tokenizer, scenes)
    distinct = figures.distinct_scenes(256, seed=SEED + 1)
    found = figures.retrieval(figures.embed(model, tokenizer, distinct))
    swaps = figures.swap_accuracy(model, tokenizer, draw_scenes(1024, seed=SEED + 2))
    cosine = (embedded.image * embedded.text).sum(dim=1).mean()
    b.table(name, {"figure": "", "value": ".3f"})
    b.row("parameters", sum(p.numel() for p in model.parameters()))
    b.row("R@1 among 256, image to text", found[0])
    b.row("R@1 among 256, text to image", found[1])
    for factor, share in swaps.items():
        b.row(f"caption swaps told apart, {factor}", share)
    b.row("distance of the modality means", figures.gap(embedded))
    b.row("mean cosine of true pairs", cosine)
    return embedded


def by_factor(b: Bench, side: str, embedded: dict[str, figures.Embedded]) -> None:
    """Print the accuracy of a linear probe and the share of variance, by factor and model."""
    probes, shares = {}, {}
    for name, found in embedded.items():
        rows = getattr(found, side)
        columns = {factor: found.scenes[factor] for factor in FACTORS}
        probes[name] = figures.probe_accuracy(rows, columns, train=len(rows) * 2 // 3)
        shares[name] = figures.variance_shares(rows, found.scenes)
    heads = {f"{name}, {kind}": ".3f" for name in embedded for kind in ("probe", "variance")}
    b.table(f"{side} embeddings", {"factor": "", "shown in": "", "chance": ".3f", **heads})
    for factor in FACTORS.values():
        cells = [column[name][factor.name] for name in embedded for column in (probes, shares)]
        b.row(factor.name, factor.sharing, 1 / len(factor.values), *cells)
    for title, names in (("shared", SHARED), ("image", IMAGE_ONLY), ("text", TEXT_ONLY)):
        b.row("all", title, None, *(c for name in embedded for c in (None, sum(shares[name][f] for f in names))))


if __name__ == "__main__":
    main()
