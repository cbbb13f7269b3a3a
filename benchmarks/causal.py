"""Does the modality score predict in which tower a latent has a causal effect?

    python benchmarks/causal.py [--pairs 4000] [--shown 128] [--random 5] [--d-sae 96] [--seeds 3]

For each seed a dictionary over both towers of the embedded model is trained by `cliplens run`, and every living latent
is ablated in the image tower, the text tower and both, with the dictionary spliced in and its error kept. The script
prints Spearman's correlation of MDS with the image tower's share of the change in matching, the share of latents that
change matching by more than two standard deviations of random directions of the same size, and both per true class.
"""

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from _bench import Estimate, bench
from cliplens.run import OpenedRun, Settings, run
from cliplens_plugins.modality.command import causal_rows


def main() -> None:
    with bench(__file__, __doc__, pairs=4000, shown=128, random=5, d_sae=96, seeds=3) as b:
        correlations: list[float] = []
        of_class: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
        for seed in range(b.args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                asked = Settings(pairs=f"world:{b.args.pairs}", d_sae=b.args.d_sae, k=8, seed=seed)
                opened = OpenedRun(run(asked, Path(folder) / "run", until="name"))
                alive = np.flatnonzero(opened.table["alive"]).tolist()
                rows = causal_rows(opened, alive, b.args.shown, b.args.random)
                truth = opened.table["truth_modality"]
            known = [row for row in rows if np.isfinite(row["causal"]) and np.isfinite(row["mds"])]
            correlations.append(spearmanr([r["mds"] for r in known], [r["causal"] for r in known]).statistic)
            for row in known:
                matters = abs(row["both"] - row["random"]) > 2 * row["spread"]
                of_class[str(truth[row["latent"]]) or "no label"].append((row["mds"], row["causal"], matters))
        found = Estimate(float(np.mean(correlations)), min(correlations), max(correlations))
        b.note("Spearman of MDS and causal modality, mean (smallest to largest over seeds)", found, ".2f")
        b.table(
            "Living latents by the modality of the truth",
            {"truth": "", "latents": "", "median mds": ".2f", "median causal": ".2f", "matter beyond random": ".0%"},
        )
        for name, values in sorted(of_class.items()):
            mds, causal, matters = (np.array(column) for column in zip(*values, strict=True))
            b.row(name, len(values), np.median(mds), np.median(causal), matters.mean())


if __name__ == "__main__":
    main()
