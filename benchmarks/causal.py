"""Does the modality score say which tower a latent matters in?

    python benchmarks/causal.py [--pairs 4000] [--shown 128] [--random 5] [--d-sae 96] [--seeds 3]

For each seed a dictionary over both towers of the embedded model is trained by `cliplens run`, and every living latent
is ablated in the image tower, the text tower and both, with the dictionary spliced in and its error kept. Printed are
Spearman's correlation of MDS with the image tower's share of the change in matching, how many latents change matching
by more than two deviations of random directions of the same size, and both per class of the ground truth.
"""

import argparse
import platform
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from cliplens.run import OpenedRun, Settings, run
from cliplens_plugins.modality.command import causal_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pairs", 4000), ("shown", 128), ("random", 5), ("d-sae", 96), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    correlations: list[float] = []
    of_class: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            asked = Settings(pairs=f"world:{options.pairs}", d_sae=options.d_sae, k=8, seed=seed)
            opened = OpenedRun(run(asked, Path(folder) / "run", until="score"))
            alive = np.flatnonzero(opened.table["alive"]).tolist()
            rows = causal_rows(opened, alive, options.shown, options.random)
            truth = opened.table["truth_modality"]
        known = [row for row in rows if np.isfinite(row["causal"]) and np.isfinite(row["mds"])]
        correlations.append(spearmanr([r["mds"] for r in known], [r["causal"] for r in known]).statistic)
        for row in known:
            matters = abs(row["both"] - row["random"]) > 2 * row["spread"]
            of_class[str(truth[row["latent"]]) or "no label"].append((row["mds"], row["causal"], matters))
    print(f"{platform.machine()}, torch {version('torch')}; world:{options.pairs}, {options.d_sae} latents, "
          f"{options.shown} pairs, {options.random} random directions, {options.seeds} seeds\n")  # fmt: skip
    print(f"Spearman of MDS and causal modality: {np.mean(correlations):.2f} "
          f"({min(correlations):.2f} to {max(correlations):.2f} over seeds)\n")  # fmt: skip
    print("| truth | latents | median mds | median causal modality | matter beyond random |\n|---|---|---|---|---|")
    for name, found in sorted(of_class.items()):
        mds, causal, matters = (np.array(column) for column in zip(*found, strict=True))
        print(f"| {name} | {len(found)} | {np.median(mds):.2f} | {np.median(causal):.2f} | {matters.mean():.0%} |")


if __name__ == "__main__":
    main()
