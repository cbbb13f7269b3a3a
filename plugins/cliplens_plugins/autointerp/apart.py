"""Tell latents with the same name apart: `star` and `star` become `star + hollow` and `star + large`.

Two latents often share their best word. The second word of each then comes from the others with that word: it separates
the own top captions from theirs. Ours.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from cliplens.contracts import Namer
from cliplens.naming import words
from cliplens.records import Evidence, Exemplars, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.space import exemplars_of, top_of
from cliplens_plugins.autointerp.vocabulary import VocabularyNamer

_LEAST = 0.25
"""Least difference of the shares of captions with a word, own top captions minus those of the others."""


@dataclass(frozen=True)
class ApartNamer(Namer):
    """Name latents as another namer does, and add a word to names that several latents share."""

    name: ClassVar[str] = "apart"
    base: Namer = field(default_factory=VocabularyNamer)
    """The namer of the first words."""

    def from_images(self, evidence: Evidence) -> list[Name]:
        """Name each latent from its top images; the added words come from the captions of these images."""
        return told_apart(self.base.from_images(evidence), evidence, "image")

    def from_captions(self, evidence: Evidence) -> list[Name]:
        """Name each latent from its top captions; so are the added words."""
        return told_apart(self.base.from_captions(evidence), evidence, "text")


def told_apart(names: Sequence[Name], evidence: Evidence, modality: Modality) -> list[Name]:
    """Return the names, with a word added to those that several latents share.

    The word is the one with the largest difference of shares: of the own top captions that hold it, minus of the top
    captions of the other latents with that name. A latent keeps its name if no word differs by a quarter. The score
    stays that of the given name; the evidence says the shares, and the word that the others have instead.

    Args:
        names: one name per latent.
        evidence: the top samples, with captions.
        modality: modality of the top samples.
    """
    found = list(names)
    exemplars = exemplars_of(evidence, modality)
    sharing: dict[str, list[int]] = defaultdict(list)
    for k, name in enumerate(names):
        if name.text is not None:
            sharing[name.text].append(k)
    for text, latents in sharing.items():
        if len(latents) < 2 or exemplars is None:
            continue
        shares = {k: shares_of(exemplars, k) for k in latents}
        known = sorted({w for of in shares.values() for w in of} - set(words(text)))
        table = np.array([[shares[k].get(w, 0.0) for w in known] for k in latents]).reshape(len(latents), len(known))
        for n, k in enumerate(latents):
            if known:
                found[k] = _added(names[k], known, table[n], np.delete(table, n, 0).mean(0), len(latents) - 1)
    return found


def shares_of(exemplars: Exemplars, latent: int) -> dict[str, float]:
    """Return for each word the share of a latent's top captions that hold it."""
    captions = [set(words(exemplars.pairs[int(i)].caption or "")) for i in top_of(exemplars, latent)]
    held: dict[str, float] = defaultdict(float)
    for caption in captions:
        for word in caption:
            held[word] += 1 / len(captions)
    return dict(held)


def _added(
    name: Name, known: Sequence[str], own: Float[np.ndarray, " word"], others: Float[np.ndarray, " word"], count: int
) -> Name:
    difference = own - others
    more, fewer = int(difference.argmax()), int(difference.argmin())
    if difference[more] < _LEAST:
        return name
    said = (
        f"{known[more]!r} in {own[more]:.0%} of top captions, {others[more]:.0%} of those of {count} of the same name"
    )
    if difference[fewer] <= -_LEAST:
        said += f"; not {known[fewer]!r} ({own[fewer]:.0%}, {others[fewer]:.0%})"
    return Name(f"{name.text} + {known[more]}", name.score, "; ".join(part for part in (name.evidence, said) if part))
