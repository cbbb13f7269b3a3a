"""How do the time and the memory of each step grow with the number of latents and of pairs?

    python benchmarks/scaling.py [--widths 4096 16384 65536] [--pairs 25000] [--also 65536x100000] [--d-in 512] [--k 32]

Each row is a run of `cliplens score` in a process of its own, on embeddings made up for the purpose, with the default
namer and controls. A pair has `--k` concepts of as many as there are latents, each concept is a direction and a word of
its caption, and the dictionary's decoder rows are these directions, so that nearly all latents live. The table gives
the seconds of each step, those of `cliplens report` and `cliplens export table` as whole commands, and the CPU seconds
and the peak memory of `cliplens score`, which names and reports too. `--also LATENTSxPAIRS` adds rows.
The results with several threads (`--threads 2`) have a file of their own, `scaling-2-threads.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from sae_lens import TopKSAE, TopKSAEConfig

from _bench import Bench, bench
from cliplens.sae import Dictionary

WORDS, SAID = 5000, 10
"""Words of the vocabulary, and of a caption."""
STEPS = ("harvest", "score", "controls", "name")


@dataclass(frozen=True)
class Used:
    """Cost of one command: wall and CPU seconds, and peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def main() -> None:
    """Print a row per number of latents, and further rows."""
    also = (["65536x100000"], "further rows, LATENTSxPAIRS each")
    with bench(__file__, __doc__, widths=[4096, 16384, 65536], pairs=25_000, also=also, d_in=512, k=32) as b:
        if b.args.threads > 1:
            b.variant(f"{b.args.threads}-threads")
        heads = {"latents": "d", "living": "d", "pairs": "d", **{f"{step}, s": ".1f" for step in STEPS}}
        heads |= {
            "report, s": ".1f",
            "export, s": ".1f",
            "CPU s": ".0f",
            "peak, MiB": ".0f",
            "CPU ms a living latent": ".1f",
        }
        threads = f", {b.args.threads} threads" if b.args.threads > 1 else ""
        b.table(f"`cliplens score`, d_in {b.args.d_in}, k {b.args.k}{threads}", heads)
        sizes = [(width, b.args.pairs) for width in b.args.widths]
        sizes += [(int(width), int(pairs)) for width, pairs in (row.split("x") for row in b.args.also)]
        for width, pairs in sizes:
            with tempfile.TemporaryDirectory(prefix="cliplens-scaling-") as held:
                measure(b, Path(held), width, pairs)
            b.save()


def measure(b: Bench, folder: Path, width: int, pairs: int) -> None:
    """Add the row of one number of latents and pairs."""
    # in a process of its own, because a command starts with the peak memory of the process that starts it
    making = get_context("spawn").Process(target=made_up, args=(folder, width, pairs, b.args.d_in, b.args.k))
    making.start()
    making.join()
    run, threads = folder / "run", str(b.args.threads)
    data = ["--embeddings", str(folder / "both.npz"), "--captions", str(folder / "captions.txt")]
    used = command("score", "--sae", str(folder / "sae"), *data, "--out", str(run), "--threads", threads)
    reported = command("report", str(run))
    exported = command("export", "table", str(run), "--out", str(folder / "table.csv"))
    summary = json.loads((run / "summary.json").read_text())
    seconds = {step: float(summary["seconds"].get(step, 0.0)) for step in STEPS}
    living = int(summary["alive"])
    each = 1e3 * used.cpu / max(living, 1)
    b.row(width, living, pairs, *seconds.values(), reported.wall, exported.wall, used.cpu, used.peak, each)


def command(*arguments: str) -> Used:
    """Run a command of cliplens; return what it took.

    Raises:
        SystemExit: the command failed.
    """
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "cliplens", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = child.stdout.read() if child.stdout else ""
    _, status, rusage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"cliplens {' '.join(arguments)} failed:\n{said[-2000:]}")
    return Used(time.perf_counter() - started, rusage.ru_utime + rusage.ru_stime, rusage.ru_maxrss / 1024)


def made_up(folder: Path, width: int, pairs: int, d_in: int, k: int) -> None:
    """Write embeddings, captions and a dictionary in which nearly every latent fires."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(width, d_in)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows: dict[str, list[np.ndarray]] = {"image": [], "text": []}
    vocabulary = [f"word{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(WORDS)]
    captions = []
    for start in range(0, pairs, 1000):
        count = min(1000, pairs - start)
        holds = rng.integers(0, width, (count, k))
        strength = rng.uniform(0.5, 1.5, (count, k, 1)).astype(np.float32)
        for kept in rows.values():
            mine = strength * (rng.random((count, k, 1)) < 0.9)
            noise = 0.02 * rng.normal(size=(count, d_in)).astype(np.float32)
            kept.append((mine * directions[holds]).sum(1) + noise)
        captions += [" ".join(vocabulary[c % WORDS] for c in row[:SAID]) for row in holds]
    arrays = {name: np.concatenate(kept).astype(np.float16) for name, kept in rows.items()}
    np.savez(folder / "both.npz", **arrays)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n")
    sae = TopKSAE(TopKSAEConfig(d_in=d_in, d_sae=width, k=k))
    with torch.no_grad():
        sae.W_dec.copy_(torch.from_numpy(directions))
        sae.W_enc.copy_(torch.from_numpy(directions.T.copy()))
    Dictionary(sae).save(folder / "sae")


if __name__ == "__main__":
    main()
