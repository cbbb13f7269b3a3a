"""Find contrastive words and n-grams: frequent in top captions, rare in other captions.

The score of an n-gram is (1 + its share of top captions - its share of other captions) / 2. This is the AUROC of
separating the two groups by the presence of the n-gram. The score is ours; it is related to the log-odds of Monroe et
al., "Fightin' Words" (2008). Words that occur in most other captions are excluded (`cliplens.naming.too_frequent`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from cliplens.naming import too_frequent, words
from cliplens.records import Evidence, Name
from cliplens.sites import Modality
from cliplens_plugins.autointerp.lexicon import Lexicon
from cliplens_plugins.autointerp.space import exemplars_of, filled, named_from

_NOTHING = Name(None, float("nan"))
_FUNCTION_WORD = 0.05
"""By how much the AUROC of a function word must exceed that of a content word to be preferred, or to be added."""
_CANDIDATES = 16
"""Number of n-grams tried as parts of a name."""
_WORTH = 0.04
"""Minimum gain in AUROC for adding a part."""
_LONGER = 0.02
"""Bonus per additional word of an n-gram: of two with equal AUROC, the longer one is more informative."""
_BLOCK = 512


def contrastive_names(
    evidence: Evidence, modality: Modality, *, longest: int, at_least: int, least_score: float, parts: int = 1
) -> list[Name]:
    """Return, for each latent, the n-gram that best separates the captions of its top samples from other captions.

    Where the evidence has a fixed vocabulary, names use only its words and phrases.

    Args:
        evidence: exemplars of `modality` with captions. The other captions are those of the background or, without a
            background, of all other exemplars.
        modality: modality of the top samples; for images, the captions of the top images are used.
        longest: maximum number of words in an n-gram.
        at_least: minimum number of captions of a latent to be named.
        least_score: names with a lower score (an AUROC) are withheld.
        parts: maximum number of n-grams in a name. A second one is added where it raises the AUROC clearly. "/" joins
            alternatives (a top caption holds one or the other), "+" joins a conjunction (a top caption holds both).
    """
    names = [_NOTHING] * evidence.d_sae
    exemplars = exemplars_of(evidence, modality)
    if exemplars is None:
        return names
    spelling = {" ".join(words(w)): w for w in evidence.vocabulary} if evidence.fixed_vocabulary else None
    if spelling is not None:
        longest = max([longest, *(gram.count(" ") + 1 for gram in spelling)])
    own = [p.caption or "" for p in exemplars.pairs]
    apart = [p.caption for p in evidence.background if p.caption]
    common = () if spelling is not None else too_frequent(apart or own)
    lexicon = Lexicon.of(own, longest, without=common, only=spelling)
    if not len(lexicon.words):
        return names
    contrast = _Contrast(lexicon, lexicon.read(apart), spelling or {}, parts)
    latents = named_from(exemplars, evidence.alive, at_least)
    at = filled(exemplars.at)
    for start in range(0, len(latents), _BLOCK):
        here = latents[start : start + _BLOCK]
        for k, name in zip(here, contrast.names(at[here], least_score), strict=True):
            names[k] = name
    return names


@dataclass(frozen=True)
class _Contrast:
    """Finds the names of many latents at once.

    Attributes:
        lexicon: n-grams of the exemplars' captions.
        others: the same n-grams in other captions; empty where there are none.
        spelling: how to write n-grams of a fixed vocabulary.
        parts: maximum number of n-grams in a name.
    """

    lexicon: Lexicon
    others: Lexicon
    spelling: dict[str, str]
    parts: int

    def names(self, at: Int[np.ndarray, "latent top"], least_score: float) -> list[Name]:
        """Return the name of each latent from its top captions."""
        candidates, lift = self._candidates(at)
        scores = 0.5 * (1 + lift)
        inside = self.lexicon.held(at[:, :, None], candidates[:, None, :])
        inside &= (at >= 0)[:, :, None] & (candidates >= 0)[:, None, :]
        places = np.zeros((len(at), 1), dtype=np.int64)
        if self.parts > 1 and len(self.others):
            places, scores = self._with_more(candidates, scores, inside, (at >= 0).sum(axis=1))
        return [
            self._name(candidates[k], places[k][places[k] >= 0], inside[k], int((at[k] >= 0).sum()), float(scores[k]))
            if candidates[k, 0] >= 0 and scores[k] >= least_score
            else _NOTHING
            for k in range(len(at))
        ]

    def _candidates(
        self, at: Int[np.ndarray, "latent top"]
    ) -> tuple[Int[np.ndarray, "latent candidate"], Float[np.ndarray, " latent"]]:
        """Return the n-grams with the highest scores of each latent, best first, and the lift of the first."""
        used = at >= 0
        count = used.sum(axis=1)
        starts = np.cumsum([0, *count])
        member = csr_matrix((np.ones(len(at[used])), at[used], starts), shape=(len(at), len(self.lexicon)))
        inside = (member @ self.lexicon.holds).tocsr()
        row = np.repeat(np.arange(len(at)), np.diff(inside.indptr))
        ngram, held = inside.indices.astype(np.int64), inside.data
        outside, total = self._outside(ngram, held, count[row])
        with np.errstate(divide="ignore", invalid="ignore"):
            lift = held / count[row] - np.where(total > 0, outside / total, np.inf)
        length = (self.lexicon.tokens >= 0).sum(axis=1) - 1
        key = lift - _FUNCTION_WORD * self.lexicon.is_function[ngram] + _LONGER * length[ngram]
        order = np.lexsort((ngram, -key, row))
        place = np.arange(len(order)) - inside.indptr[row[order]]
        best = (place < _CANDIDATES) & (total[order] > 0)
        candidates = np.full((len(at), _CANDIDATES), -1, dtype=np.int64)
        candidates[row[order][best], place[best]] = ngram[order][best]
        first = np.full(len(at), -np.inf)
        top = best & (place == 0)
        first[row[order][top]] = lift[order][top]
        return candidates, first

    def _outside(
        self, ngram: Int[np.ndarray, " held"], inside: Float[np.ndarray, " held"], top: Int[np.ndarray, " held"]
    ) -> tuple[Float[np.ndarray, " held"], Float[np.ndarray, " held"]]:
        """Return how many other captions hold an n-gram, and how many other captions there are."""
        if len(self.others):
            return self.others.all_counts[ngram], np.full(len(ngram), float(len(self.others)))
        return self.lexicon.all_counts[ngram] - inside, len(self.lexicon) - top.astype(np.float64)

    def _with_more(
        self,
        candidates: Int[np.ndarray, "latent candidate"],
        scores: Float[np.ndarray, " latent"],
        inside: Bool[np.ndarray, "latent top candidate"],
        count: Int[np.ndarray, " latent"],
    ) -> tuple[Int[np.ndarray, "latent part"], Float[np.ndarray, " latent"]]:
        """Add n-grams greedily while the AUROC of the number of n-grams held by a caption rises.

        Return the indices of the chosen n-grams among the candidates (-1 for none), and the scores.
        """
        unique, number = np.unique(np.maximum(candidates, 0), return_inverse=True)
        outside = self.others.columns(unique)[:, number.reshape(candidates.shape)].transpose(1, 0, 2)
        penalty = _FUNCTION_WORD * self.lexicon.is_function[candidates]
        free = (candidates >= 0) & ~_share_words(self.lexicon.tokens, candidates)
        held_in, held_out = inside[:, :, :1].astype(np.int8), outside[:, :, :1].astype(np.int8)
        places = np.zeros((len(candidates), 1), dtype=np.int64)
        going = np.ones(len(candidates), dtype=bool)
        for _ in range(self.parts - 1):
            tried = _auroc_of_counts(held_in + inside, held_out + outside, count)
            tried = np.where(free, tried - penalty, -np.inf)
            best = tried.argmax(axis=1)
            rows = np.arange(len(best))
            going &= tried[rows, best] >= scores + _WORTH
            gained = (tried + penalty)[rows, best]
            if not going.any():
                break
            places = np.column_stack([places, np.where(going, best, -1)])
            scores = np.where(going, gained, scores)
            free[going, best[going]] = False
            pick = best[:, None, None]
            held_in = held_in + np.take_along_axis(inside, pick, axis=2) * going[:, None, None]
            held_out = held_out + np.take_along_axis(outside, pick, axis=2) * going[:, None, None]
        return places, scores

    def _name(
        self,
        candidates: Int[np.ndarray, " candidate"],
        places: Int[np.ndarray, " part"],
        inside: Bool[np.ndarray, "top candidate"],
        count: int,
        score: float,
    ) -> Name:
        """Return the name of one latent; "+" joins parts that co-occur more often than chance, "/" joins others."""
        grams = [self.lexicon.words[candidates[p]] for p in places]
        held = inside[:, places].astype(np.float64)
        name = self.spelling.get(grams[0], grams[0])
        for n in range(1, len(grams)):
            together = (held[:, 0] * held[:, n]).sum() / count
            by_chance = held[:, 0].sum() * held[:, n].sum() / count**2
            name += f" {'+' if together >= by_chance / 2 else '/'} {self.spelling.get(grams[n], grams[n])}"
        of_top = held.sum(axis=0)
        outside, total = self._outside(candidates[places], of_top, np.full(len(places), count))
        said = [
            f"{gram!r} in {inner:.0f} of {count} top captions, {outer / all_:.0%} of others"
            for gram, inner, outer, all_ in zip(grams, of_top, outside, total, strict=True)
        ]
        return Name(name, score, ", ".join(said))


def _share_words(
    tokens: Int[np.ndarray, "ngram word"], candidates: Int[np.ndarray, "latent candidate"]
) -> Bool[np.ndarray, "latent candidate"]:
    """Return which candidates share a word with the first candidate."""
    first = tokens[candidates[:, 0]][:, None, :, None]
    each = tokens[candidates][:, :, None, :]
    return ((first == each) & (first >= 0)).any(axis=(2, 3))


def _auroc_of_counts(
    inside: Int[np.ndarray, "latent top candidate"],
    outside: Int[np.ndarray, "latent other candidate"],
    count: Int[np.ndarray, " latent"],
) -> Float[np.ndarray, "latent candidate"]:
    """Return the AUROC of small counts in top captions against counts in other captions; ties count one half.

    Only the first `count` top captions of a latent are valid.
    """
    below = np.zeros((len(inside), inside.shape[2]))
    won = np.zeros_like(below)
    missing = inside.shape[1] - count
    for value in range(int(max(inside.max(initial=0), outside.max(initial=0))) + 1):
        up = (inside == value).sum(axis=1) - (missing[:, None] if value == 0 else 0)
        down = (outside == value).sum(axis=1)
        won += up * (below + 0.5 * down)
        below += down
    return won / (count[:, None] * outside.shape[1])
