"""Time a training step over the firing latents alone against SAELens' stock step and against the floor.

    python benchmarks/training_step.py [--rounds 5] [--steps 60] [--d-in 512] [--widths 4096 16384] [--batch 2048]
                                       [--k 32] [--device cpu] [--threads 1]

A step is a whole step of SAELens' own `SAETrainer`: forward, losses, backward, clipping, Adam, firing statistics. Stock
steps run as SAELens runs them; fast steps run as `cliplens.sae.train` runs them, with fused Adam and reused memory. The
floor is one dense encode product and one fused Adam update of all weights. All three take turns in one process on the
same batches. A turn is three steps, the first of them not counted. On a CPU time is the process's own CPU time. The
table gives medians, and medians of paired ratios with their 95 % interval (bootstrap over rounds).

Then stock and fast are trained from one start with latents dying by themselves. The largest relative distance of their
losses is printed in float64, and in float32, where rounding sometimes decides which latent is the k-th.
"""

import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from _bench import Bench, bench, ratio
from cliplens.sae import dictionary_config
from cliplens.sae.train import use_fused_adam
from cliplens.store.memory import reused_memory

ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "iso_energy")
COUNTED = 2
"""Steps counted per turn."""


def trainer(
    architecture: str, d_sae: int, asked: Namespace, *, window: int = 1000, dtype: str = "float32"
) -> SAETrainer:
    """Return a stock trainer; stock and fast classes start from the same weights."""
    torch.manual_seed(0)
    config = dictionary_config(architecture, asked.d_in, d_sae, k=asked.k, device=asked.device, dtype=dtype)
    sae = get_sae_training_class(architecture)[0](config)
    settings = SAETrainerConfig(
        10**9, asked.batch, lr=1e-3, lr_end=1e-3, device=asked.device, dead_feature_window=window
    )
    made = SAETrainer(settings, sae, iter([]))
    if architecture.startswith("fast_"):
        use_fused_adam(made)
    return made


def batches(asked: Namespace, d_sae: int, count: int) -> list[Tensor]:
    """Return batches of sparse mixtures of random directions, so that there is something to learn."""
    draw = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(d_sae // 2, asked.d_in, generator=draw), dim=-1)
    out = []
    for _ in range(count):
        fires = torch.rand(asked.batch, len(directions), generator=draw) < 10 / len(directions)
        codes = fires * torch.rand(asked.batch, len(directions), generator=draw)
        out.append((codes @ directions).to(asked.device))
    return out


def step_of(trained: SAETrainer, dead: int) -> Callable[[Tensor], object]:
    """Return a training step with `dead` latents dead."""

    def step(batch: Tensor) -> object:
        trained.n_forward_passes_since_fired.zero_()
        trained.n_forward_passes_since_fired[:dead] = 10**6
        return trained.step(batch)

    return step


def floor_of(d_sae: int, asked: Namespace) -> Callable[[Tensor], object]:
    """Return one encode product and one fused Adam update of as many weights."""
    shapes = [(asked.d_in, d_sae), (d_sae, asked.d_in), (d_sae,), (asked.d_in,)]
    weights = [torch.nn.Parameter(torch.randn(shape, device=asked.device)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimiser = torch.optim.Adam(weights, lr=1e-3, fused=True, foreach=False)

    def step(batch: Tensor) -> object:
        with torch.no_grad():
            product = torch.addmm(weights[2], batch, weights[0])
        optimiser.step()
        return product

    return step


def seconds(step: Callable[[Tensor], object], given: list[Tensor], *, reused: bool, device: str) -> float:
    """Return seconds per step of one turn."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    with reused_memory() if reused else nullcontext():
        step(given[0])
        _wait(device)
        started = clock()
        for batch in given[1:]:
            step(batch)
        _wait(device)
        return (clock() - started) / (len(given) - 1)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def compare(b: Bench, architecture: str, d_sae: int, dead: int) -> None:
    """Print one row of the table."""
    asked = b.args
    cases = {
        "stock": (step_of(trainer(architecture, d_sae, asked), dead), False),
        "fast": (step_of(trainer(f"fast_{architecture}", d_sae, asked), dead), True),
        "floor": (floor_of(d_sae, asked), True),
    }
    given = batches(asked, d_sae, COUNTED + 1)
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(asked.rounds):
        for name, (step, reused) in cases.items():
            taken[name].append(seconds(step, given, reused=reused, device=asked.device))
    times = [1e3 * median(taken[name]) for name in cases]
    b.row(architecture, d_sae, dead, *times, ratio(taken["stock"], taken["fast"]), ratio(taken["fast"], taken["floor"]))


def curves(asked: Namespace, architecture: str, dtype: str) -> str:
    """Train both from one start; latents die after a few silent steps and are revived."""
    small = Namespace(**{**vars(asked), "d_in": 64, "batch": 256, "k": 8})
    trainers = {
        name: trainer(name, 1024, small, window=5, dtype=dtype) for name in (architecture, f"fast_{architecture}")
    }
    apart, dead, losses = 0.0, 0, (0.0, 0.0)
    for batch in batches(small, 1024, asked.steps):
        dead = max(dead, int(trainers[architecture].dead_neurons.sum()))
        stock, fast = (t.step(batch.to(getattr(torch, dtype))).loss.item() for t in trainers.values())
        apart, losses = max(apart, abs(stock - fast) / stock), (stock, fast)
    return (
        f"{asked.steps} steps, at most {dead} of 1024 latents dead: losses end at {losses[0]:.6f} and {losses[1]:.6f},"
        f" never further apart than {apart:.1e} of the loss"
    )


def main() -> None:
    """Print the tables and write the result file."""
    with bench(__file__, __doc__, rounds=5, steps=60, d_in=512, widths=[4096, 16384], batch=2048, k=32) as b:
        b.table(
            f"A training step, d_in {b.args.d_in}, batch {b.args.batch}, k {b.args.k}",
            {
                "architecture": "",
                "latents": "",
                "dead": "",
                "stock, ms": ".0f",
                "fast, ms": ".0f",
                "floor, ms": ".0f",
                "stock / fast": ".2f",
                "fast / floor": ".2f",
            },
        )
        for d_sae in b.args.widths:
            for architecture in ARCHITECTURES:
                for dead in (0, d_sae // 2) if d_sae == b.args.widths[0] else (0,):
                    compare(b, architecture, d_sae, dead)
        for architecture in ARCHITECTURES:
            for dtype in ("float64", "float32"):
                b.note(f"{architecture}, {dtype}", curves(b.args, architecture, dtype))


if __name__ == "__main__":
    main()
