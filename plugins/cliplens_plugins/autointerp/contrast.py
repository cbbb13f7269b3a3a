"""Contrastive words and n-grams: what top captions hold and other captions do not.

The score of an n-gram is (1 + share of top captions - share of other captions) / 2, which is the AUROC of telling
the two apart by whether the n-gram is there. Ours; kin of the log-odds of Monroe et al., "Fightin' Words" (2008).
"""

import numpy as np

from cliplens.records import Evidence, Exemplars, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.lexicon import Lexicon
from cliplens_plugins.autointerp.space import named_from, top_of

_NOTHING = Name(None, float("nan"))
_FUNCTION_WORD = 0.05
"""By how much more a function word must tell than a content word to be preferred."""
_LONGER = 0.02
"""What each further word of an n-gram is worth: of two that tell alike, the longer one says more."""


def contrastive_names(
    evidence: Evidence, modality: Modality, *, longest: int, at_least: int, least_score: float
) -> list[Name]:
    """The n-gram by which the captions of each latent's top samples differ most from other captions.

    Args:
        evidence: exemplars of `modality` with captions; the background gives the other captions.
        modality: whose top samples; for images, the captions they come with.
        longest: most words in a name.
        at_least: captions a latent must have.
        least_score: names that tell no better than this are withheld.
    """
    names = [_NOTHING] * evidence.d_sae
    exemplars = evidence.images if modality == "image" else evidence.texts
    if exemplars is None:
        return names
    lexicon = Lexicon.of([p.caption or "" for p in exemplars.pairs], longest)
    others = lexicon.read([p.caption for p in evidence.background if p.caption])
    for k in named_from(exemplars, evidence.alive, at_least):
        names[k] = _name(exemplars, k, lexicon, others, least_score)
    return names


def _name(exemplars: Exemplars, latent: int, lexicon: Lexicon, others: Lexicon, least_score: float) -> Name:
    top = top_of(exemplars, latent)
    inside = lexicon.counts(top)
    if len(others.holds):
        total, outside = len(others.holds), others.all_counts
    else:
        total, outside = len(lexicon.holds) - len(top), lexicon.all_counts - inside
    if total <= 0 or not len(lexicon.words):
        return _NOTHING
    lift = inside / len(top) - outside / total
    length = np.array([w.count(" ") for w in lexicon.words])
    best = int((lift - _FUNCTION_WORD * lexicon.is_function + _LONGER * length).argmax())
    score = float(0.5 * (1 + lift[best]))
    if score < least_score:
        return _NOTHING
    evidence = f"in {inside[best]:.0f} of {len(top)} top captions, {100 * outside[best] / total:.0f} % of others"
    return Name(lexicon.words[best], score, evidence)
