# %% [markdown]
# # A dictionary on patches, with SAELens' own runner
#
# SAELens trains on the tokens of language models. Here its stock runner trains on the patches of pictures, inside the
# vision tower. For `ViT-B-32`, take `vision.blocks.9.hook_resid_post`; the embedded model has three blocks, so this is
# block 1.

# %%
import warnings

import torch
from sae_lens import LanguageModelSAETrainingRunner

import cliplens
from cliplens.analysis import drawn, grid_of, latent_map
from cliplens.sae import dictionary_config, runner_config

warnings.filterwarnings("ignore")
clip = cliplens.load("world", device="cpu")
pairs = cliplens.read_pairs("world:600")
clip

# %% [markdown]
# ## Train
#
# `image_dataset` gives each picture as a row of tokens, as SAELens expects; `positions="patches"` leaves the class token
# out. Everything else is SAELens': its configuration, its trainer, its files.

# %%
site = "vision.blocks.1.hook_resid_post"
config = dictionary_config("topk", clip.width(site), d_sae=192, k=8)
options = {"training_tokens": 30_720, "train_batch_size_tokens": 512, "n_checkpoints": 0, "output_path": "patches"}
runner = runner_config(clip, site, config, positions="patches", lr=2e-3, **options)
sae = LanguageModelSAETrainingRunner(
    runner, override_model=clip.vision, override_dataset=cliplens.image_dataset(pairs, clip)
).run()

# %% [markdown]
# ## How good is it?
#
# Explained variance on new pictures, and the same for a dictionary that was never trained: the control.

# %%
images, _ = clip.batch(cliplens.read_pairs("world:64:1"))
rows = clip.vision.read(images, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"][:, 1:].flatten(0, 1)


@torch.no_grad()
def explained(of, acts) -> float:
    """Return 1 - squared error / variance."""
    return float(1 - (acts - of(acts)).pow(2).sum() / (acts - acts.mean(0)).pow(2).sum())


sae.eval()
fresh = type(sae)(sae.cfg)
{"trained": explained(sae, rows), "never trained": explained(fresh, rows)}

# %% [markdown]
# ## Where does a latent fire?
#
# Take the latent with the strongest single activation on one picture, and shade the patches by it.

# %%
dictionary = cliplens.Dictionary(sae)
picture = cliplens.read_pairs("world:64:1")[3].image
codes = latent_map(clip.vision, clip.vision.checked(picture), dictionary, list(range(192)), hook=site)
latent = int(codes[0].amax(1).argmax())
drawn(picture, grid_of(clip.vision, codes[0, latent]).numpy())

# %% [markdown]
# With a caption, the same map tells where the latent brings the picture nearer to *it* (red) or moves it away (blue).
# Compare captions: the map is conditioned on the text.

# %%
read = clip.encode_text("a red ring", normalize=True).detach()
effect = latent_map(clip.vision, clip.vision.checked(picture), dictionary, [latent], read, hook=site)
drawn(picture, grid_of(clip.vision, effect[0, 0]).numpy())

# %% [markdown]
# The folder `patches/` opens with `SAE.load_from_disk`. To score and name its latents with pictures and captions, use
# `cliplens score --sae patches --model world --pairs world:600 --hook vision.blocks.1.hook_resid_post --token patches`.
#
# **Next**: [training classes and the other runners](../dictionaries.md).
