# %% [markdown]
# # Your own pairs, to a report
#
# You have pictures with captions, and want to know what a CLIP model sees in them. This notebook goes from a table of
# captions to a report. It uses the embedded model and pictures drawn for it, so that it runs anywhere; the comments say
# what to change for yours.

# %%
import csv
from pathlib import Path

from PIL import Image

import cliplens
from cliplens.run import OpenedRun, Settings, run

# %% [markdown]
# ## The pairs
#
# A CSV file with a column of picture files and one of captions is enough. Yours is already there; here one is made.
# [Other sources](../data.md): JSONL, COCO, a folder, WebDataset, parquet, `datasets`.

# %%
Path("pictures").mkdir(exist_ok=True)
with Path("captions.csv").open("w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["image", "caption"])
    for number, pair in enumerate(cliplens.read_pairs("world:1200")):
        pair.image.save(f"pictures/{number}.png")
        table.writerow([f"pictures/{number}.png", pair.caption])
Path("pictures/7.png").write_bytes(b"this is no picture")

pairs = cliplens.read_pairs("captions.csv")
pairs

# %%
pairs[1].image.resize((192, 192))

# %%
pairs[1].caption

# %% [markdown]
# One file is broken, as happens. The run will put it into *quarantine* with the reason, and go on.
#
# ## The run
#
# One call reads both embeddings of every pair, trains a dictionary on them, scores and names its latents, and writes a
# report. On the command line: `cliplens run --model ViT-B-32 --pretrained ... --pairs captions.csv --out first`.
# If it is interrupted, the same with `--resume` goes on.

# %%
settings = Settings(pairs="captions.csv", model="world", d_sae=128, k=8, samples=60_000, batch_size=512, max_bad=0.05)
folder = run(settings, "first")
opened = OpenedRun(folder)
Path("first/quarantine.jsonl").read_text(encoding="utf-8")

# %% [markdown]
# ## What was found
#
# `table` has one row per latent. `mds` tells where a latent fires: near 1 on images, near 0 on captions. The column
# `modality_significant` says so only where the evidence is sufficient; with a thousand pairs, that is not everywhere.

# %%
frame = opened.table.to_pandas()
frame["modality_significant"].value_counts()

# %% [markdown]
# Leave out latents that fire on fewer than twenty of the scored pairs: their figures say little.

# %%
known = frame[(frame["mds_pairs"] >= 20) & (frame["name"] != "unnamed")].sort_values("cofiring", ascending=False)
known[["name", "name_score", "mds", "mds_low", "mds_high", "cofiring", "mds_pairs"]].head(8)

# %% [markdown]
# The strongest pictures of the first latent of that list. A name is a guess; the pictures are what it was made from.

# %%
latent = int(known.index[0])
pictures = opened.top_pictures(latent, 6)
row = Image.new("RGB", (100 * len(pictures), 96), "white")
for place, picture in enumerate(pictures):
    row.paste(picture.resize((96, 96)), (100 * place, 0))
row

# %%
opened.captions_of(latent, 3)

# %% [markdown]
# Open `first/report.html` for all of it: warnings first, then figures beside their controls, and a card per latent.
#
# **Next**: [find and steer a feature](3-steer.ipynb), or [what the scores do not say](../concepts.md).
