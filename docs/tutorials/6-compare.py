# %% [markdown]
# # Compare dictionaries
#
# Is a wider dictionary better? Would another seed find the same latents? A comparison is fair at equal L0, on the same
# rows, and beside what chance gives.

# %%
import pandas as pd
import torch

import cliplens
from cliplens.records import PairedActs
from cliplens.sae import dictionary_config, train
from cliplens.stream import stream
from cliplens_plugins.fidelity import stability
from cliplens_plugins.modality import classify_fixed, mds

clip = cliplens.load("world", device="cpu")
training, held_out = cliplens.read_pairs("world:2048"), cliplens.read_pairs("world:1024:5")


def trained(d_sae: int, seed: int) -> cliplens.Dictionary:
    """Train a dictionary with eight firing latents per row."""
    rows = cliplens.activations(clip, training, batch_size=512, seed=seed)
    return train(dictionary_config("topk", rows.d_in, d_sae=d_sae, k=8), rows, samples=120_000, seed=seed)


dictionaries = {"128": trained(128, 0), "128, other seed": trained(128, 1), "256": trained(256, 0)}
dictionaries["128"]

# %% [markdown]
# ## On the same held-out rows

# %%
parts = list(stream(clip, held_out, ["vision.hook_embedding", "text.hook_embedding"]))
ids = tuple(i for part in parts for i in part.ids)
acts = PairedActs(ids, torch.cat([part.image for part in parts]), torch.cat([part.text for part in parts]))

found = {}
for name, dictionary in dictionaries.items():
    batch = dictionary.batch(acts)
    error = sum(float((batch.acts.of(m) - batch.reconstruction.of(m)).pow(2).sum()) for m in ("image", "text"))
    whole = sum(float((batch.acts.of(m) - batch.acts.of(m).mean(0)).pow(2).sum()) for m in ("image", "text"))
    image, text = batch.codes.image.dense(), batch.codes.text.dense()
    classes = classify_fixed(mds(image, text).numpy())
    found[name] = {
        "explained variance": 1 - error / whole,
        "L0": float((image != 0).sum(1).float().mean()),
        "dead": int((classes == "dead").sum()),
        "ImgD": int((classes == "ImgD").sum()),
        "TextD": int((classes == "TextD").sum()),
        "CrossD": int((classes == "CrossD").sum()),
    }
pd.DataFrame(found).T

# %% [markdown]
# ## Does another seed find the same latents?
#
# Latents are matched by the cosine of their decoder rows. `chance_found` is the share that random mixtures of the rows
# would find again: a figure near it says nothing.

# %%
first = dictionaries["128"]
codes = first.encode(acts)
classes = classify_fixed(mds(codes.image.dense(), codes.text.dense()).numpy())
rows = stability(first.decoder, dictionaries["128, other seed"].decoder, classes)
pd.DataFrame(rows).set_index("class")

# %% [markdown]
# ## Does the wider one keep the narrow one's latents?

# %%
pd.DataFrame(stability(first.decoder, dictionaries["256"].decoder, classes)).set_index("class")

# %% [markdown]
# Which is better depends on the question. For names and steering, few stable latents; for reconstruction, many. Which score
# recovers a known truth is measured in [MODTRUTH](../modality-ground-truth.md), and whether two single runs differ at all
# needs several seeds: `cliplens run --controls`.
