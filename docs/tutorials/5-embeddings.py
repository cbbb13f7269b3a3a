# %% [markdown]
# # Embeddings without a model
#
# You have embeddings of images and captions as arrays, from a model that you cannot open here. Training, scores, names and
# the report work on them alone.

# %%
from pathlib import Path

import numpy as np

import cliplens
from cliplens.run import OpenedRun, Settings, run

# %% [markdown]
# ## The arrays
#
# Row i of both belongs to one pair. Yours come from elsewhere; these are made here, and the model is then forgotten.

# %%
clip, pairs = cliplens.load("world", device="cpu"), cliplens.read_pairs("world:1500")
images, tokens = clip.batch(pairs)
np.save("image.npy", clip.encode_image(images, normalize=True).detach().numpy())
np.save("text.npy", clip.encode_text(tokens, normalize=True).detach().numpy())
Path("captions.txt").write_text("\n".join(pairs.captions), encoding="utf-8")
del clip

# %% [markdown]
# ## The run
#
# On the command line: `cliplens run --embeddings image.npy text.npy --captions captions.txt --out given`. Captions are
# optional; with them, latents get names, and the report shows the strongest captions.

# %%
settings = Settings(
    embeddings=["image.npy", "text.npy"],
    captions="captions.txt",
    d_sae=128,
    k=8,
    samples=60_000,
    batch_size=512,
)
opened = OpenedRun(run(settings, "given"))
frame = opened.table.to_pandas()
known = frame[(frame["mds_pairs"] >= 20) & (frame["name"] != "unnamed")]
known[["name", "mds", "mds_low", "mds_high", "cofiring"]].sort_values("cofiring", ascending=False).head(8)

# %% [markdown]
# Which latents fire on images rather than captions? The cuts alone would name these; with 300 scored pairs few of them are
# significant. With real models, look at the gap between the modalities first: a wide one splits concepts
# ([concepts](../concepts.md)).

# %%
frame[frame["modality"] == "ImgD"][["mds", "mds_low", "mds_high", "mds_pairs", "modality_significant"]].head()

# %% [markdown]
# ## Your own rows through the dictionary
#
# The dictionary is an ordinary one: encode other rows, or open it with SAELens.

# %%
from sae_lens import SAE

of_images = SAE.load_from_disk("given/sae/image")
codes = of_images.encode(of_images.W_dec.new_tensor(np.load("image.npy")[:4]))
(codes != 0).sum(1)

# %% [markdown]
# Without the model these are refused: heat maps over patches and words, fidelity, causal effects, steering.
