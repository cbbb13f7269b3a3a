# %% [markdown]
# # Why do an image and a caption match?
#
# Three answers to one question: which patches and words count, which heads and MLPs write the similarity, and which
# latents of the image meet which latents of the caption. Each comes with what it does not say.

# %%
import cliplens
from cliplens.analysis import attribute_latent_pairs, attribute_match, explain_pair
from cliplens.sae import dictionary_config, train

clip = cliplens.load("world", device="cpu")
pairs = cliplens.read_pairs("world:2048")
pair = pairs[5]
pair.caption

# %% [markdown]
# ## Patches and words
#
# Relevance ([arXiv 2103.15679](https://arxiv.org/abs/2103.15679)) multiplies attention by its gradient of the similarity.
# Red patches and words count most.

# %%
found = explain_pair(clip, pair.image, pair.caption)
found

# %% [markdown]
# Is it true? Greying the marked patches should lower the similarity more than greying random ones:

# %%
print(found.test)

# %% [markdown]
# ## Heads and MLPs
#
# The similarity is a sum over everything that writes to the final stream, with the scale of the last norm held fixed.

# %%
images, tokens = clip.batch(pair)
match = attribute_match(clip, images, tokens)
print(f"similarity {match.similarity.item():.3f}")
match.image.top(0)[:5]

# %% [markdown]
# ## Latents
#
# A dictionary splits both embeddings into a few latents. Each attribution adds up to the similarity, the rest included.

# %%
rows = cliplens.activations(clip, pairs, batch_size=512)
dictionary = train(dictionary_config("batchtopk", rows.d_in, d_sae=128, k=8), rows, samples=100_000)
match = attribute_match(clip, images, tokens, dictionary)
total = match.image.parts.sum() + sum(part.sum() for part in match.image.rest.values())
print(f"{total.item():.3f} = {match.similarity.item():.3f}")
match.image.top(0)[:5]

# %% [markdown]
# Which latent of the image meets which latent of the caption? Usually the same one: that is what a dictionary over both
# modalities is for. Where two different latents meet, the concept may be split.

# %%
attribute_latent_pairs(clip, images, tokens, dictionary).top()[:5]

# %% [markdown]
# An attribution is not the effect of removing something: norms and other parts react. To measure that, ablate
# ([analysis](../analysis.md)).
