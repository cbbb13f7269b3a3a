"""How much faster is a top-k training step computed from the k firing latents, against SAELens' stock TopK?

    python benchmarks/topk_step.py [--rounds 15] [--steps 60] [--d-in 512] [--d-sae 4096] [--batch 512] [--k 32]
                                   [--device cpu] [--threads 1]

Whole steps of SAELens' own `SAETrainer`: forward, losses, backward, clipping, Adam, firing statistics. Both are fed the
same batches; rounds run in random order in one process, and on a CPU time is the thread's own, so that a busy machine
disturbs little. The table gives milliseconds (median) and the median of the paired ratios with its 95 % interval
(bootstrap over rounds), without dead latents, with a tenth and with half of them dead. Then both are trained from the
same start with latents dying by themselves, and the greatest distance of their loss curves is printed: in float64, and
in float32, where rounding sometimes decides which latent is the k-th.
"""

import argparse
import platform
import random
import time
from importlib.metadata import version

import numpy as np
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from cliplens.sae import dictionary_config

STOCK, FAST = "topk", "fast_topk"


def trainer(architecture: str, asked: argparse.Namespace, *, window: int = 1000, dtype: str = "float32") -> SAETrainer:
    """A stock trainer, its weights the same for both architectures."""
    torch.manual_seed(0)
    config = dictionary_config(architecture, asked.d_in, asked.d_sae, k=asked.k, device=asked.device, dtype=dtype)
    sae = get_sae_training_class(architecture)[0](config)
    settings = SAETrainerConfig(
        10**9, asked.batch, lr=1e-3, lr_end=1e-3, device=asked.device, dead_feature_window=window
    )
    return SAETrainer(settings, sae, iter([]))


def batches(asked: argparse.Namespace, count: int) -> list[Tensor]:
    """Sparse mixtures of random directions, so that there is something to learn."""
    draw = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(asked.d_sae // 2, asked.d_in, generator=draw), dim=-1)
    out = []
    for _ in range(count):
        fires = torch.rand(asked.batch, len(directions), generator=draw) < 10 / len(directions)
        codes = fires * torch.rand(asked.batch, len(directions), generator=draw)
        out.append((codes @ directions).to(asked.device))
    return out


def seconds(step: SAETrainer, batch: Tensor, dead: int, device: str) -> float:
    """The time of one step with so many latents dead."""
    step.n_forward_passes_since_fired.zero_()
    step.n_forward_passes_since_fired[:dead] = 10**6
    if device == "cpu":
        start = time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()
        step.step(batch)
        return (time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()) - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step.step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(asked: argparse.Namespace, dead: int) -> str:
    """One row of the table."""
    trainers = {name: trainer(name, asked) for name in (STOCK, FAST)}
    taken: dict[str, list[float]] = {STOCK: [], FAST: []}
    for number, batch in enumerate(batches(asked, asked.rounds + 2)):
        for name in random.sample([STOCK, FAST], 2):
            spent = seconds(trainers[name], batch, dead, asked.device)
            if number >= 2:
                taken[name].append(spent)
    ratios = np.array(taken[STOCK]) / np.array(taken[FAST])
    redrawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(redrawn, axis=1), [0.025, 0.975])
    middle = [1e3 * float(np.median(taken[name])) for name in (STOCK, FAST)]
    return f"| {dead} | {middle[0]:.1f} | {middle[1]:.1f} | {np.median(ratios):.2f} ({low:.2f}-{high:.2f}) |"


def curves(asked: argparse.Namespace, dtype: str) -> str:
    """Both trained from one start; latents die after a few silent steps and are revived."""
    trainers = {name: trainer(name, asked, window=5, dtype=dtype) for name in (STOCK, FAST)}
    apart, dead, losses = 0.0, 0, (0.0, 0.0)
    for batch in batches(asked, asked.steps):
        dead = max(dead, int(trainers[STOCK].dead_neurons.sum()))
        stock, fast = (trainers[name].step(batch.to(getattr(torch, dtype))).loss.item() for name in (STOCK, FAST))
        apart, losses = max(apart, abs(stock - fast) / stock), (stock, fast)
    return (
        f"{dtype}: {asked.steps} steps from one start, at most {dead} latents dead: losses end at {losses[0]:.6f} and"
        f" {losses[1]:.6f}, never further apart than {apart:.1e} of the loss"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--d-in", type=int, default=512)
    parser.add_argument("--d-sae", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    machine = (
        torch.cuda.get_device_name() if asked.device != "cpu" else f"{platform.machine()}, {asked.threads} thread(s)"
    )
    print(
        f"d_in {asked.d_in}, d_sae {asked.d_sae}, batch {asked.batch}, k {asked.k}, {asked.rounds} rounds; {machine};",
        end=" ",
    )
    print(f"torch {torch.__version__}, sae-lens {version('sae-lens')}, cliplens {version('cliplens')}\n")
    print("| dead latents | stock TopK, ms | fast TopK, ms | ratio (95 % interval) |\n|---|---|---|---|")
    for dead in (0, asked.d_sae // 10, asked.d_sae // 2):
        print(compare(asked, dead), flush=True)
    print()
    for dtype in ("float64", "float32"):
        print(curves(asked, dtype), flush=True)


if __name__ == "__main__":
    main()
