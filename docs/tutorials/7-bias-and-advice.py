# %% [markdown]
# # Bias and data advice
#
# Two questions of those who own data: does an attribute follow from another more often than it should, in the images or in
# the captions; and which pairs are worth mending?

# %%
import numpy as np
import torch

import cliplens
from cliplens.records import PairedActs
from cliplens.sae import dictionary_config, train
from cliplens.statistics import auroc
from cliplens.world import value_sentences
from cliplens_plugins.advice import clip_score, score_pairs
from cliplens_plugins.bias import pair_bias, planted_pairs

clip = cliplens.load("world", device="cpu")
pairs = cliplens.read_pairs("world:2048")
rows = cliplens.activations(clip, pairs, batch_size=512)
dictionary = train(dictionary_config("topk", rows.d_in, d_sae=192, k=8), rows, samples=150_000)

# %% [markdown]
# ## Which captions are wrong?
#
# A tenth of the captions gets another colour. Latents that fire strongly on the image and nearly always on its caption,
# but not on this one, point at what is missing.

# %%
checked = cliplens.read_pairs("world:1000:3")
captions = list(checked.captions)
swap = {"red": "blue", "blue": "red", "green": "yellow", "yellow": "green"}
spoiled = np.zeros(len(captions), dtype=bool)
for number in range(0, len(captions), 5):
    words = [swap.get(word, word) for word in captions[number].split()]
    spoiled[number] = words != captions[number].split()
    captions[number] = " ".join(words)
print(f"{spoiled.sum()} of {len(captions)} captions were spoiled")

images, _ = clip.batch(checked)
seen = clip.encode_image(images, normalize=True).detach()
read = clip.encode_text(captions, normalize=True).detach()
codes = dictionary.encode(PairedActs(checked.ids, seen, read))
scores = score_pairs(codes.image.dense().numpy(), codes.text.dense().numpy())
ranked = {
    "misses what the image shows": scores.misses,
    "says what it lacks": scores.contradicts,
    "low CLIP score": -clip_score(seen, read),
}
{name: round(auroc(values[spoiled], values[~spoiled]), 3) for name, values in ranked.items()}

# %% [markdown]
# Be fair to the simple score: a low cosine finds such captions at least as well here. What latents add is the word. The
# worst pair, and the latents behind it:

# %%
worst = int(scores.misses.argmax())
print(captions[worst])
checked[worst].image.resize((192, 192))

# %%
scores.of(worst)

# %% [markdown]
# For a run, `cliplens advise RUN` does this with a page to accept or reject pairs, and decides per concept between
# collecting images and rewriting captions ([advice](../advice.md)).
#
# ## Where does a bias lie?
#
# `cliplens bias RUN` measures worst groups, rankings and probes before and after seven methods. Its smallest part finds the
# modality of a bias from pairs alone. Here the colour follows from the shape at rate 0.8, in the pictures only.
# The prototypes must speak as the captions do: with a bare "a star", rates come out far too low.


# %%
of_images, of_captions = planted_pairs(clip, 600, 0.8, "images")


def prototypes(factor):
    """Return the mean embedding of captions that name each value of a factor and are equal otherwise."""
    said = [clip.encode_text(captions, normalize=True).detach() for captions in value_sentences(factor)]
    return torch.nn.functional.normalize(torch.stack(said).double().mean(1), dim=1)


found = pair_bias(of_images.double(), of_captions.double(), prototypes("shape"), prototypes("colour"))
found.where, found.image

# %%
found.text

# %% [markdown]
# Read [bias](../bias.md) before you use a method: on the embedded world hardly any removes the attribute, and the dictionary
# is not needed for the best result.
