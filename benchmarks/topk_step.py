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

import random
import time
from argparse import Namespace
from statistics import median

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from _bench import Bench, bench, ratio
from cliplens.sae import dictionary_config

STOCK, FAST = "topk", "fast_topk"


def trainer(architecture: str, asked: Namespace, *, window: int = 1000, dtype: str = "float32") -> SAETrainer:
    """A stock trainer, its weights the same for both architectures."""
    torch.manual_seed(0)
    config = dictionary_config(architecture, asked.d_in, asked.d_sae, k=asked.k, device=asked.device, dtype=dtype)
    sae = get_sae_training_class(architecture)[0](config)
    settings = SAETrainerConfig(
        10**9, asked.batch, lr=1e-3, lr_end=1e-3, device=asked.device, dead_feature_window=window
    )
    return SAETrainer(settings, sae, iter([]))


def batches(asked: Namespace, count: int) -> list[Tensor]:
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


def compare(b: Bench, dead: int) -> None:
    """Print one row of the table."""
    trainers = {name: trainer(name, b.args) for name in (STOCK, FAST)}
    taken: dict[str, list[float]] = {STOCK: [], FAST: []}
    for number, batch in enumerate(batches(b.args, b.args.rounds + 2)):
        for name in random.sample([STOCK, FAST], 2):
            spent = seconds(trainers[name], batch, dead, b.args.device)
            if number >= 2:
                taken[name].append(spent)
    times = [1e3 * median(taken[name]) for name in (STOCK, FAST)]
    b.row(dead, *times, ratio(taken[STOCK], taken[FAST]))


def curves(asked: Namespace, dtype: str) -> str:
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
    with bench(__file__, __doc__, rounds=15, steps=60, d_in=512, d_sae=4096, batch=512, k=32) as b:
        b.table(
            f"A training step, d_in {b.args.d_in}, d_sae {b.args.d_sae}, batch {b.args.batch}, k {b.args.k}",
            {"dead latents": "", "stock TopK, ms": ".1f", "fast TopK, ms": ".1f", "times faster": ".2f"},
        )
        for dead in (0, b.args.d_sae // 10, b.args.d_sae // 2):
            compare(b, dead)
        for dtype in ("float64", "float32"):
            b.note(f"loss curves, {dtype}", curves(b.args, dtype))


if __name__ == "__main__":
    main()
