"""Contrastive words and n-grams: what top captions hold and other captions do not.

The score of an n-gram is (1 + share of top captions - share of other captions) / 2, which is the AUROC of telling
the two apart by whether the n-gram is there. Ours; kin of the log-odds of Monroe et al., "Fightin' Words" (2008).
"""

import numpy as np
from jaxtyping import Int

from cliplens.naming import auroc
from cliplens.records import Evidence, Exemplars, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.lexicon import Lexicon
from cliplens_plugins.autointerp.space import named_from, top_of

_NOTHING = Name(None, float("nan"))
_FUNCTION_WORD = 0.05
"""By how much more a function word must tell than a content word to be preferred."""
_CANDIDATES = 16
"""How many n-grams are tried as a further part of a name."""
_WORTH = 0.04
"""What AUROC a further part must add."""
_LONGER = 0.02
"""What each further word of an n-gram is worth: of two that tell alike, the longer one says more."""


def contrastive_names(
    evidence: Evidence, modality: Modality, *, longest: int, at_least: int, least_score: float, parts: int = 1
) -> list[Name]:
    """The n-gram by which the captions of each latent's top samples differ most from other captions.

    Args:
        evidence: exemplars of `modality` with captions; the background gives the other captions.
        modality: whose top samples; for images, the captions they come with.
        longest: most words in a name.
        at_least: captions a latent must have.
        least_score: names that tell no better than this are withheld.
        parts: most n-grams in a name: a second is added where both together tell clearly better than one. They are
            joined by "/" where top captions hold one or the other (two words for one thing), by "+" where they hold
            both (a conjunction).
    """
    names = [_NOTHING] * evidence.d_sae
    exemplars = evidence.images if modality == "image" else evidence.texts
    if exemplars is None:
        return names
    lexicon = Lexicon.of([p.caption or "" for p in exemplars.pairs], longest)
    others = lexicon.read([p.caption for p in evidence.background if p.caption])
    for k in named_from(exemplars, evidence.alive, at_least):
        names[k] = _name(exemplars, k, lexicon, others, least_score, parts)
    return names


def _name(exemplars: Exemplars, latent: int, lexicon: Lexicon, others: Lexicon, least_score: float, parts: int) -> Name:
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
    order = np.argsort(-(lift - _FUNCTION_WORD * lexicon.is_function + _LONGER * length), kind="stable")
    chosen = [int(order[0])]
    score = float(0.5 * (1 + lift[chosen[0]]))
    if parts > 1 and len(others.holds):
        chosen, score = _with_more(chosen, score, order[1:_CANDIDATES], top, lexicon, others, parts)
    if score < least_score:
        return _NOTHING
    said = [
        f"{lexicon.words[w]!r} in {inside[w]:.0f} of {len(top)} top captions, {outside[w] / total:.0%} of others"
        for w in chosen
    ]
    return Name(_joined(chosen, top, lexicon), score, ", ".join(said))


def _with_more(
    chosen: list[int],
    score: float,
    candidates: Int[np.ndarray, " word"],
    top: Int[np.ndarray, " top"],
    lexicon: Lexicon,
    others: Lexicon,
    parts: int,
) -> tuple[list[int], float]:
    """Add the n-gram with which the number of n-grams held tells top captions from others best, while that helps."""
    near = [int(w) for w in candidates if not set(lexicon.words[w].split()) & set(lexicon.words[chosen[0]].split())]
    inside, outside = lexicon.holding([*chosen, *near], top), others.holding([*chosen, *near])
    while len(chosen) < parts and near:
        held = list(range(len(chosen)))
        at = [len(inside.T) - len(near) + n for n in range(len(near))]
        scores = [auroc(inside[:, [*held, a]].sum(1), outside[:, [*held, a]].sum(1)) for a in at]
        best = int(np.argmax(scores))
        if scores[best] < score + _WORTH:
            break
        chosen, score = [*chosen, int(near[best])], scores[best]
        near = [w for n, w in enumerate(near) if n != best]
        inside, outside = lexicon.holding([*chosen, *near], top), others.holding([*chosen, *near])
    return chosen, score


def _joined(chosen: list[int], top: Int[np.ndarray, " top"], lexicon: Lexicon) -> str:
    """The n-grams of a name: with "+" where they are said together more often than chance, with "/" where less."""
    held = lexicon.holding(chosen, top)
    name = lexicon.words[chosen[0]]
    for n in range(1, len(chosen)):
        together = (held[:, 0] * held[:, n]).mean() >= held[:, 0].mean() * held[:, n].mean() / 2
        name += f" {'+' if together else '/'} {lexicon.words[chosen[n]]}"
    return name
