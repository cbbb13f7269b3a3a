# %% [markdown]
# # Compare dictionaries
#
# Is a wider dictionary better? Would another seed find the same latents? A comparison is fair at equal L0, on the same
# pictures, with several seeds, and beside what chance gives. Two commands do that: `cliplens sweep` trains, `cliplens
# compare` measures.

# %%
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens_plugins.fidelity import stability


def command(line: str) -> None:
    """Run a cliplens command and show what it prints. In a terminal, type the line itself."""
    words = [sys.executable, "-m", *line.split()]
    print(subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE).stdout)


# %% [markdown]
# ## Train: two widths, three seeds, one harvest
#
# The model reads the pairs once. `topk` fires exactly `--k` latents per row, so both widths have the same L0. For your
# own pairs add `--model`, `--pretrained` and `--pairs captions.csv`; without `--until train` each dictionary is scored
# and named as well.

# %%
command(
    "cliplens sweep --pairs world:2048 --architecture topk --k 8 --d-sae 128,256 --seed 0,1,2 "
    "--samples 60000 --until train --out sweep"
)

# %% [markdown]
# ## Measure: the same held-out pictures for all
#
# Every figure has a 95 % interval over pictures (or none, where it is no mean over pictures).

# %%
command("cliplens compare sweep --out comparison")

# %% [markdown]
# `comparison/compare.html` shows the same with plots, and works offline. `compare.csv` has a row per dictionary, each figure
# beside its control: for explained variance and MS a random dictionary of the same L0, for stability random mixtures of the
# decoder rows.

# %%
frame = pd.read_csv("comparison/compare.csv").set_index("dictionary")
frame[["seed", "explained_variance", "explained_variance_control", "ms_image", "ms_image_control"]].round(3)

# %% [markdown]
# ## Which differences count?
#
# One counts as *different* if it is larger than between seeds **and** than over other pictures. `reseed_bound` is the
# first limit. With two or three seeds it is wide: train five before you conclude that two dictionaries are alike.

# %%
found = json.loads(Path("comparison/compare.json").read_text(encoding="utf-8"))
differences = pd.DataFrame(found["differences"]).set_index("figure")
differences[["first", "second", "difference", "low", "high", "reseed_bound", "verdict"]].round(3)

# %% [markdown]
# ## Does another seed find the same latents?
#
# Each dictionary of the sweep is a run that every command and `OpenedRun` open. Latents are matched by the cosine of their
# decoder rows. `chance_found` is the share that random mixtures of the rows would find again: a figure near it says
# nothing.

# %%
first, reseeded, wider = (
    OpenedRun(RunFolder.open(f"sweep/hook_embedding-topk-{name}")).dictionary.decoder
    for name in ("d128-k8-s0", "d128-k8-s1", "d256-k8-s0")
)
pd.DataFrame(stability(first, reseeded)).set_index("class")

# %% [markdown]
# ## Does the wider one keep the narrow one's latents?

# %%
pd.DataFrame(stability(first, wider)).set_index("class")

# %% [markdown]
# Which is better depends on the question. For names and steering, few stable latents; for reconstruction, many. Which score
# recovers a known truth is measured in [MODTRUTH](../modality-ground-truth.md); how often the marks of `compare` are wrong, in
# [its page](../comparison.md#how-often-it-is-wrong).
