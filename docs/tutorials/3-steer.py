# %% [markdown]
# # Find and steer a feature
#
# Find the latents for a word, replace them by those for another, and look at what changes, in CLIP and in pictures.

# %%
import torch
from PIL import Image

import cliplens
from cliplens.run import OpenedRun, Settings, run
from cliplens.world import FACTORS, value_sentences
from cliplens_plugins.generators import WorldGenerator

settings = Settings(pairs="world:4096", model="world", d_sae=256, k=8, samples=200_000)
opened = OpenedRun(run(settings, "steered", until="name"))
clip = opened.clip

# %% [markdown]
# ## Find
#
# Candidates are ranked by their name, by how they react to the words, and by the captions on which they fire.

# %%
for candidate in opened.find("red", 3):
    print(candidate)

# %% [markdown]
# ## Steer CLIP
#
# Inside the block, codes are edited at the site of the dictionary, with the reconstruction error kept. At the end the
# model is as before. The classes are read zero-shot; a random edit of equal norm is the control.

# %%
red = [pair for pair in cliplens.read_pairs("world:300:9") if " red " in f" {pair.caption} "][:12]
images, _ = clip.batch(red)
colours = ["red", "blue", "green"]
plain = clip.encode_image(images, normalize=True).detach()
edited = {}
for dose in (1.0, 2.0, 3.0):
    with cliplens.steer(clip, "steered", "red->blue", dose=dose):
        edited[dose] = clip.encode_image(images, normalize=True).detach()

noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
size = (edited[2.0] - plain).norm(dim=1, keepdim=True)
random = torch.nn.functional.normalize(plain + noise / noise.norm(dim=1, keepdim=True) * size, dim=1)

said = value_sentences("colour")  # captions that name each colour and are equal otherwise
spoken = [clip.encode_text(said[FACTORS["colour"].values.index(c)], normalize=True).detach().mean(0) for c in colours]
prototypes = torch.nn.functional.normalize(torch.stack(spoken), dim=1)


def share_of_blue(embeddings) -> float:
    """Return the share of embeddings whose nearest colour is blue."""
    return float(((embeddings @ prototypes.T).argmax(1) == colours.index("blue")).float().mean())


steered = {f"dose {dose:g}": share_of_blue(rows) for dose, rows in edited.items()}
{"before": share_of_blue(plain), **steered, "random, as large as dose 2": share_of_blue(random)}

# %% [markdown]
# ## Look at it
#
# The embedded generator draws a picture from an embedding, as a diffusion prior would. Rows: before, doses 1, 2 and
# 3, random edit. Too small a dose stops between the colours; too large a one draws embeddings unlike any it was trained on.

# %%
generator = WorldGenerator()
sheet = Image.new("RGB", (6 * 100, 5 * 100), "white")
for line, embeddings in enumerate([plain, *edited.values(), random]):
    for place, picture in enumerate(generator.generate(embeddings[:6], seed=0)):
        sheet.paste(picture.resize((96, 96)), (100 * place, 100 * line))
sheet

# %% [markdown]
# ## In a pipeline
#
# The target may also be a diffusers pipeline or a LLaVA-type model, with a dictionary trained on its own encoder:
#
#     with cliplens.steer(pipeline, "sd15-run", "red->blue", dose=2):
#         pipeline("a red ring").images
#
# [From your own pipeline to steered pictures](../steering-tutorial.md) has the three commands for Stable Diffusion, XL,
# StableUnCLIP and LLaVA. Measure before you believe: [success and side effects](../steering.md), where a swap of class
# means often does as well as latents.
