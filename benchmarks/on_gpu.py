"""Measure hooks, harvest, compilation, training and scoring on one CUDA GPU. No network; random weights.

    python benchmarks/on_gpu.py                               every part, under eight minutes on one H100
    python benchmarks/on_gpu.py --parts train score           some parts
    python benchmarks/on_gpu.py --short --device cpu          tiny sizes, to check the script where there is no GPU

Parts: parity, forward, harvest, compile, train, score. Ratios are paired: each round runs both cases in one process, in
random order, and the table gives the median of the ratios per round with a 95 % bootstrap interval. The result file is
written after every part. If a part fails, its error is noted, and the others still run.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import cliplens
from _bench import Bench, Estimate, alternate, bench, peak_memory, ratio
from cliplens import registry
from cliplens.contracts import Metric
from cliplens.hooked import CompiledReading, HookedCLIP, HookedTower
from cliplens.pairs import Decoder, Pairs
from cliplens.records import PairedActs
from cliplens.sae import Dictionary, dictionary_config
from cliplens.sae.inference import inference
from cliplens.sae.train import use_fused_adam
from cliplens.sites import sites_of
from cliplens.store import harvest

PARITY_MODELS = ("ViT-B-32", "ViT-B-16-SigLIP2", "EVA02-B-16", "RN50")
TIMED_MODELS = (("ViT-L-14", "bfloat16", 256), ("ViT-B-32", "float32", 256))
TINY_MODELS = (("world", "float32", 8),)
CLASSES = ("topk", "batchtopk", "matryoshka_batchtopk")
WORDS = ("a", "photo", "of", "the", "small", "red", "dog", "on", "green", "grass", "near", "an", "old", "house")


def main() -> None:
    """Run the chosen parts and write their tables."""
    parts = {
        "parity": measure_parity,
        "forward": measure_forward,
        "harvest": measure_harvest,
        "compile": measure_compile,
        "train": measure_train,
        "score": measure_score,
    }
    warnings.simplefilter("ignore")
    with bench(__file__, __doc__, parts=list(parts), short=False, workers=[0]) as b:
        torch.manual_seed(0)
        for name in b.args.parts:
            started = time.perf_counter()
            try:
                parts[name](b)
            except Exception as error:
                traceback.print_exc()
                b.note(f"{name}: error", f"{type(error).__name__}: {error}")
            b.note(f"{name}: seconds", round(time.perf_counter() - started, 1))
            b.save()
            if b.args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def gpu_memory(device: str) -> float | None:
    """Return the peak memory allocated on the GPU in GB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None


# ---------------------------------------------------------------- models and data


def timed_models(args: argparse.Namespace) -> Iterator[tuple[HookedCLIP, str, int]]:
    """Yield model, dtype and batch size; weights are random."""
    for name, dtype, batch in TINY_MODELS if args.short else TIMED_MODELS:
        yield loaded(name, args.device, dtype), dtype, batch


def loaded(name: str, device: str, dtype: str = "float32") -> HookedCLIP:
    """Open a model with random weights, or the embedded world with its own weights."""
    return cliplens.load(name, pretrained=None if name == "world" else "random", device=device, dtype=dtype)


def images_for(clip: HookedCLIP, count: int) -> Tensor:
    return torch.randn(count, 3, *clip.vision.cfg.image_size, device=clip.device, dtype=clip.dtype)


def tokens_for(clip: HookedCLIP, count: int) -> Tensor:
    assert clip.text is not None
    tokens = torch.randint(1, min(1000, clip.text.cfg.d_vocab), (count, clip.text.cfg.n_ctx), device=clip.device)
    tokens[:, -1] = clip.text.cfg.d_vocab - 1
    return tokens


def towers_of(clip: HookedCLIP, count: int) -> Iterator[tuple[str, HookedTower, Tensor]]:
    """Yield each tower with inputs of its size."""
    yield "vision", clip.vision, images_for(clip, count)
    if clip.text is not None:
        yield "text", clip.text, tokens_for(clip, count)


def write_pictures(folder: Path, distinct: int, pairs: int) -> Path:
    """Write a CSV of pairs with JPEG files of 400 x 300 pixels; pictures repeat, so that writing them is fast."""
    draw, words = np.random.default_rng(0), random.Random(0)
    (folder / "images").mkdir()
    for number in range(distinct):
        small = draw.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{number}.jpg", quality=90)
    lines = ["id,image,caption"]
    for number in range(pairs):
        caption = " ".join(words.choices(WORDS, k=words.randint(5, 18)))
        lines.append(f"p{number},images/{number % distinct}.jpg,{caption} {number}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


# ---------------------------------------------------------------- parts


@torch.no_grad()
def measure_parity(b: Bench) -> None:
    """Compare towers with nothing hooked (bitwise) and with every hook (largest difference) to stock."""
    heads = {"model": "", "tower": "", "dtype": "", "nothing hooked, bitwise stock": "", "every hook, off by": ".1e"}
    b.table("Parity of hooked towers with stock (difference relative to the largest output)", heads)
    for name in ("world",) if b.args.short else PARITY_MODELS:
        for dtype in ("float32", "float64", "bfloat16"):
            for side, tower, inputs in towers_of(loaded(name, b.args.device, dtype), 4):
                stock = tower.run_stock(inputs)
                hooked = tower.run_with_cache(inputs, names_filter=lambda hook: True)[0]
                off = float((hooked.double() - stock.double()).abs().max() / stock.double().abs().max())
                b.row(name, side, dtype, torch.equal(tower(inputs), stock), off)


@torch.no_grad()
def measure_forward(b: Bench) -> None:
    """Time a forward pass with nothing hooked, one residual hook, and all hooks but `result`, against stock."""
    heads = {"model": "", "dtype": "", "batch": "", "tower": "", "case": "", "ms": ".2f", "times stock": ".3f"}
    b.table("Forward passes", heads)
    for clip, dtype, batch in timed_models(b.args):
        for side, tower, inputs in towers_of(clip, batch):
            hooks = [f"blocks.{tower.cfg.n_layers // 2 - 1}.hook_resid_post", "hook_embedding"]
            runs: dict[str, Callable[[], object]] = {
                "stock": lambda t=tower, x=inputs: t.run_stock(x),
                "nothing hooked": lambda t=tower, x=inputs: t(x),
                "read one residual and the embedding": lambda t=tower, x=inputs, h=hooks: t.read(x, h),
            }
            small = inputs[: max(batch // 8, 1)]  # every activation of a large batch does not fit into memory
            cached: dict[str, Callable[[], object]] = {
                "stock": lambda t=tower, x=small: t.run_stock(x),
                "cache all hooks but result": lambda t=tower, x=small: t.run_with_cache(x),
            }
            for cases, size in ((runs, batch), (cached, len(small))):
                taken = alternate(cases, 3 if b.args.short else 11, device=b.args.device, warmup=2)
                for case, spent in taken.items():
                    against = ratio(spent, taken["stock"])
                    b.row(clip.identity.name, dtype, size, side, case, 1e3 * statistics.median(spent), against)


def measure_harvest(b: Bench) -> None:
    """Time a harvest from JPEG files to disk against the two forwards with inputs on the device."""
    args, cpus = b.args, len(os.sched_getaffinity(0))
    distinct, count = (32, 96) if args.short else (1024, 8192)
    workers = args.workers if any(args.workers) else ([0, 1] if args.short else [max(cpus // 2, 1), max(cpus - 1, 1)])
    clip, dtype, batch = next(timed_models(args))
    heads = {"case": "", "pairs/s": ".0f", "of the forwards": ".3f", "decoding alone, pairs/s": ".0f", "GPU, GB": ".2f"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pairs = cliplens.read_pairs(write_pictures(folder, distinct, count))
        b.table(f"Harvest of both embeddings, {clip.identity.name}, {dtype}, batch {batch}, {cpus} CPU cores", heads)
        bare = count / bare_forwards(clip, count, batch, args.device)
        b.row("the two forwards alone", bare, 1.0, None, gpu_memory(args.device))
        for number in workers:
            decoding = count / seconds_of_decoding(clip, pairs, batch, number)
            cache = folder / f"cache{number}"
            spent = wall(lambda n=number, c=cache: harvest_to(clip, pairs, c, batch, n), args.device)
            case = f"harvest, {number} decode workers"
            b.row(case, count / spent, count / spent / bare, decoding, gpu_memory(args.device))
    b.note("harvest: peak resident memory, MiB", round(peak_memory()))


def harvest_to(clip: HookedCLIP, pairs: Pairs, folder: Path, batch: int, workers: int) -> None:
    harvest(clip, pairs, sites_of("hook_embedding"), folder, forward_batch=batch, workers=workers)


def wall(run: Callable[[], object], device: str) -> float:
    """Return the wall seconds of one call on any device."""
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@torch.no_grad()
def bare_forwards(clip: HookedCLIP, count: int, batch: int, device: str) -> float:
    """Return the seconds of the stock towers with inputs on the device."""
    model: Any = clip.model
    images, tokens = images_for(clip, batch), tokens_for(clip, batch)

    def run() -> None:
        for _ in range(count // batch):
            model.encode_image(images)
            model.encode_text(tokens)

    model.encode_image(images), model.encode_text(tokens)
    return wall(run, device)


def seconds_of_decoding(clip: HookedCLIP, pairs: Pairs, batch: int, workers: int) -> float:
    """Return the seconds of decoding and preprocessing every picture, without a model."""
    indices = np.split(np.arange(len(pairs)), range(batch, len(pairs), batch))
    decoder: Any = Decoder(pairs, clip.preprocess, True)
    loader: Any = DataLoader(decoder, batch_size=None, sampler=indices, num_workers=workers)  # type: ignore[arg-type]
    return wall(lambda: [None for _ in loader], "cpu")


@torch.no_grad()
def measure_compile(b: Bench) -> None:
    """Time reading one batch without and with torch.compile."""
    heads = {"model": "", "dtype": "", "batch": "", "tower": "", "to compile, s": ".1f", "times as fast": ".2f"}
    b.table("Reading a residual and the embedding through torch.compile", {**heads, "off by": ".1e"})
    for clip, dtype, batch in timed_models(b.args):
        for side, tower, inputs in towers_of(clip, batch):
            hooks = [f"blocks.{tower.cfg.n_layers // 2}.hook_resid_post", "hook_embedding"]
            compiled = CompiledReading(clip.model, tower, side, hooks, batch)
            first = wall(lambda c=compiled, x=inputs: c(x), b.args.device)
            runs: dict[str, Callable[[], Any]] = {
                "plain": lambda t=tower, x=inputs, h=hooks: t.read(x, h),
                "compiled": lambda c=compiled, x=inputs: c(x),
            }
            taken = alternate(runs, 3 if b.args.short else 11, device=b.args.device, warmup=2)
            plain, other = runs["plain"](), runs["compiled"]()
            off = max(
                float((plain[h].float() - other[h].float()).abs().max() / plain[h].float().abs().max()) for h in hooks
            )
            gain = ratio(taken["plain"], taken["compiled"])
            b.row(clip.identity.name, dtype, batch, side, first, gain, off)


def measure_train(b: Bench) -> None:
    """Time training steps of SAELens' own trainer against stock classes and against the floor of any dense step."""
    heads = {"d_sae": "", "matmul": "", "class": "", "ms": ".2f", "rows/s": ".0f", "times the floor": ".2f"}
    title = "Training step, {}; the floor is one dense encode product and fused Adam over both matrices"
    d_in, batch, k = (64, 128, 8) if b.args.short else (768, 4096, 32)
    b.table(
        title.format(f"d_in {d_in}, batch {batch}, k {k}"), {**heads, "times as fast as stock": ".2f", "GPU, GB": ".2f"}
    )
    for d_sae in (256,) if b.args.short else (16384, 65536):
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            steps_of(b, d_in, d_sae, batch, k, precision)
    torch.set_float32_matmul_precision("highest")


def steps_of(b: Bench, d_in: int, d_sae: int, batch: int, k: int, precision: str) -> None:
    """Time every class at one size and precision; memory is the increase by one trainer and its step."""
    device, repeats = b.args.device, 1 if b.args.short else 5
    rows = [torch.randn(batch, d_in, device=device) for _ in range(4)]
    floor = floor_of(d_in, d_sae, rows, device)
    for family in families():
        trainers, memory = {}, {}
        for name in family:
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / 1e9 if device == "cuda" else 0.0
            trainers[name] = trainer(name, d_in, d_sae, batch, k, device)
            trainers[name].step(rows[0])
            peak = gpu_memory(device)
            memory[name] = None if peak is None else peak - before
        runs: dict[str, Callable[[], object]] = {
            name: lambda t=step: [t.step(rows[n % 4]) for n in range(repeats)] for name, step in trainers.items()
        }
        taken = alternate({**runs, "floor": lambda: [floor() for _ in range(repeats)]}, 7, device=device, warmup=2)
        for name in family:
            ms = 1e3 * statistics.median(taken[name]) / repeats
            faster: Estimate | None = ratio(taken[family[0]], taken[name]) if name != family[0] else None
            b.row(
                d_sae, precision, name, ms, 1e3 * batch / ms, ratio(taken[name], taken["floor"]), faster, memory[name]
            )
        del trainers, runs


def floor_of(d_in: int, d_sae: int, rows: list[Tensor], device: str) -> Callable[[], object]:
    """Return the floor of any dense step: one encode product and an Adam step over both matrices."""
    weights = [torch.randn(d_in, d_sae, device=device, requires_grad=True) for _ in range(2)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    adam = torch.optim.Adam(weights, lr=1e-6, fused=True)

    def run() -> None:
        with torch.no_grad():
            rows[0] @ weights[0]
        adam.step()

    return run


def families() -> list[list[str]]:
    """Return each of SAELens' classes with its fast form, if there is one."""
    return [[name, *(fast for fast in (f"fast_{name}",) if installed(fast))] for name in CLASSES]


def installed(architecture: str) -> bool:
    try:
        get_sae_training_class(architecture)
    except (KeyError, ValueError):
        return False
    return True


def trainer(name: str, d_in: int, d_sae: int, batch: int, k: int, device: str) -> SAETrainer:
    torch.manual_seed(0)
    more: dict[str, Any] = {"matryoshka_widths": [d_sae // 4, d_sae]} if "matryoshka" in name else {}
    sae = get_sae_training_class(name)[0](dictionary_config(name, d_in, d_sae, k=k, device=device, **more))
    settings = SAETrainerConfig(10**9, batch, lr=1e-4, lr_end=1e-4, device=device)
    made = SAETrainer(settings, sae, iter([]))
    if name.startswith("fast_"):
        use_fused_adam(made)
    return made


def measure_score(b: Bench) -> None:
    """Time every metric of a run over a dictionary on the device, against encoding and decoding the same pairs."""
    d_in, batch, k, count = (64, 64, 8, 2) if b.args.short else (768, 1024, 32, 6)
    for d_sae in (512,) if b.args.short else (16384, 65536):
        dictionary = random_dictionary(d_in, d_sae, k, b.args.device)
        metrics = {p.name: m for p, m in registry.made("metrics", Metric) if p.name != "ground_truth"}
        spent: dict[str, list[float]] = {name: [] for name in ("encode", *metrics)}
        for number in range(count + 1):
            acts, made = random_pairs(number, batch, d_in), []
            spent["encode"].append(wall(lambda d=dictionary, a=acts, m=made: m.append(one_batch(d, a)), b.args.device))
            for name, metric in metrics.items():
                spent[name].append(wall(lambda m=metric, x=made[0]: update(b, m, x), b.args.device))
        heads = {"step": "", "ms a batch": ".1f", "times encoding": ".2f"}
        b.table(f"Scoring {batch} pairs a batch, d_in {d_in}, d_sae {d_sae}, k {k}", heads)
        warm = {name: statistics.median(values[1:]) for name, values in spent.items()}
        for name, middle in warm.items():
            b.row(name, 1e3 * middle, middle / warm["encode"])
        everything = sum(warm[name] for name in metrics)
        b.row("all metrics", 1e3 * everything, everything / warm["encode"])
        b.note(f"score: GPU memory at {d_sae} latents, GB", gpu_memory(b.args.device), ".2f")
        b.note(f"score: peak resident memory at {d_sae} latents, MiB", round(peak_memory()))


def update(b: Bench, metric: Metric, batch: Any) -> None:
    """Update a metric with one batch; note a failure once."""
    try:
        metric.update(batch)
    except Exception as error:
        if f"score: {metric.name} failed" not in b.notes:
            traceback.print_exc()
            b.note(f"score: {metric.name} failed", f"{type(error).__name__}: {error}")


def random_dictionary(d_in: int, d_sae: int, k: int, device: str) -> Dictionary:
    torch.manual_seed(0)
    sae = get_sae_training_class("topk")[0](dictionary_config("topk", d_in, d_sae, k=k, device=device))
    return Dictionary(inference(sae))


def random_pairs(number: int, batch: int, d_in: int) -> PairedActs:
    draw = torch.Generator().manual_seed(number)
    ids = tuple(f"pair-{number}-{i}" for i in range(batch))
    return PairedActs(ids, *(torch.randn(batch, d_in, generator=draw) for _ in range(2)))


def one_batch(dictionary: Dictionary, acts: PairedActs) -> Any:
    judged = PairedActs(acts.ids, *(nn.functional.normalize(acts.of(m), dim=-1) for m in ("image", "text")))
    return dictionary.batch(acts, judged={"judge": judged}, targets={"target": np.arange(len(acts.ids)) % 3 == 0})


if __name__ == "__main__":
    main()
