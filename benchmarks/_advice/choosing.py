"""Ways to spend a budget of mended pairs: as advised, exchanged, at random, and by the rankings of others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from open_clip.model import CLIP
from PIL import Image

from _advice.planted import Corpus
from _advice.training import BATCH, embedded
from cliplens import api
from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary, dictionary_config, train
from cliplens.studies import sample_codes
from cliplens.tasks import contrastive_losses
from cliplens.world import render
from cliplens_plugins.advice import Concept, concepts_of, coverage, misfit, sdm_choose, strong
from cliplens_plugins.advice.of_run import Seen, see
from cliplens_plugins.advice.scores import PairScores

DECIDED, CONCEPTS = 1024, 24
"""Pairs and concepts that decisions are made on: the defaults of `cliplens advise`."""
Action = Literal["rewrite captions", "collect images"]


@dataclass(frozen=True)
class Spent:
    """Rows of the pairs whose captions are rewritten, and of the other pairs that are added."""

    rewritten: list[int]
    taken: list[int]

    def apply(self, corpus: Corpus, pool: Corpus) -> Corpus:
        """Return the pairs after the mending."""
        rows = [np.array(part, dtype=np.int64) for part in (self.rewritten, self.taken)]
        return corpus.rewritten(rows[0]).collected(pool, rows[1])


Mend = Callable[[int], Spent]


@dataclass(frozen=True, eq=False)
class Advised:
    """The findings of `cliplens advise` about pairs, and the pictures to collect from."""

    corpus: Corpus
    pool: Corpus
    """Pairs without faults, to collect from."""
    seen: Seen
    of_pool: Float[np.ndarray, "other d_sae"]
    of_target: Float[np.ndarray, "target d_sae"]
    concepts: Sequence[Concept]
    loss: Float[np.ndarray, " pair"]
    """Loss of the model to be trained again."""

    def decided(self, action: Action) -> list[int]:
        """Return the latents with a decision."""
        return [c.latent for c in self.concepts if c.decision == action]


def advised(clip: HookedCLIP, model: CLIP, corpus: Corpus, pool: Corpus, target: Corpus) -> Advised:
    """Train a dictionary on the pairs and make the study of `cliplens advise`.

    Args:
        clip: the model that advises.
        model: the model to be trained again, for its loss.
        corpus: the pairs, with faults.
        pool: pairs without faults, to collect from.
        target: pairs with the concepts in the wanted shares.
    """
    pictures = [Image.fromarray(picture) for picture in render(corpus.scenes)]
    pairs = api.read_pairs(list(zip(pictures, corpus.texts, strict=True)))
    rows = api.activations(clip, pairs, batch_size=1024)
    dictionary = train(dictionary_config("topk", rows.d_in, 256, k=8), rows, samples=300_000)
    images, tokens = corpus.inputs
    seen = see(clip, dictionary, [str(n) for n in range(len(corpus))], corpus.texts, images)
    of_pool, of_target = (_codes(clip, dictionary, other) for other in (pool, target))
    covered = coverage((seen.codes[0] > 0).sum(0), len(corpus), (of_target > 0).sum(0), len(of_target))
    some = _first(seen.scores, DECIDED)
    against = some.missed.sum(0) + some.contradicted.sum(0) + DECIDED * covered.under_covered
    chosen = [int(k) for k in np.argsort(-against, kind="stable")[:CONCEPTS] if against[k] > 0]
    codes = seen.codes[0][:DECIDED], seen.codes[1][:DECIDED]
    found = concepts_of(clip, dictionary, images[:DECIDED], tokens[:DECIDED], codes, some, chosen, covered=covered)
    return Advised(corpus, pool, seen, of_pool, of_target, found, losses(model, corpus))


def arms(given: Advised, *, seed: int) -> dict[str, Mend]:
    """Return the ways to spend a budget. Each maps a number of pairs to what is done to which pairs."""
    seen = given.seen
    rng = np.random.default_rng(seed)
    any_pair, any_other = rng.permutation(len(given.corpus)), rng.permutation(len(given.pool))
    ranked = {name: np.argsort(-score, kind="stable") for name, score in seen.rankings.items()}
    faults, rare = given.decided("rewrite captions"), given.decided("collect images")
    sdm = sdm_choose(given.of_pool, given.of_target, len(given.pool) // 2, already=seen.codes[0], seed=seed)
    nothing = np.zeros(0, dtype=np.int64)
    as_advised = partial(_both, _faulty_first(seen, faults), _in_turns(given.of_pool, rare))
    return {
        "as advised": as_advised,
        "exchanged": partial(_both, _in_turns(seen.codes[0], rare), _in_turns(given.of_pool, faults)),
        "random, as many as advised": partial(_as_many, as_advised, any_pair, any_other),
        "random, both": partial(_both, any_pair, any_other),
        "random, rewrite": partial(_both, any_pair, nothing),
        "random, collect": partial(_both, nothing, any_other),
        "lowest CLIP score, rewrite": partial(_both, ranked["low CLIP score"], nothing),
        "latents and CLIP score, rewrite": partial(_both, ranked["latents and CLIP score"], nothing),
        "latents, rewrite": partial(_both, ranked["misses + contradicts"], nothing),
        "highest loss, rewrite": partial(_both, np.argsort(-given.loss, kind="stable"), nothing),
        "lowest SAE-V score, rewrite": partial(_both, ranked["low SAE-V score"], nothing),
        "SDM, collect": partial(_both, nothing, sdm),
        "the faulty pairs, rewrite": partial(_both, np.argsort(~given.corpus.wrong, kind="stable"), nothing),
    }


def losses(model: CLIP, corpus: Corpus) -> Float[np.ndarray, " pair"]:
    """Return the contrastive loss of each pair in batches of 128."""
    scale = float(model.logit_scale.detach().exp())
    parts = zip(*(x.split(BATCH) for x in embedded(model, corpus)), strict=True)
    return np.concatenate([contrastive_losses(image, text, scale).numpy() for image, text in parts])


def _both(rewritten: np.ndarray, taken: np.ndarray, budget: int) -> Spent:
    """Spend half of the budget on each action, and what one cannot use on the other."""
    half = min(budget // 2 if len(rewritten) else budget, len(taken))
    first = rewritten[: budget - half]
    return Spent(first.tolist(), taken[: budget - len(first)].tolist())


def _as_many(way: Mend, rewritten: np.ndarray, taken: np.ndarray, budget: int) -> Spent:
    """Mend as many pairs as another way does with the budget."""
    other = way(budget)
    return Spent(rewritten[: len(other.rewritten)].tolist(), taken[: len(other.taken)].tolist())


def _faulty_first(seen: Seen, latents: Sequence[int]) -> Int[np.ndarray, " ranked"]:
    """Return the pairs whose captions miss or contradict one of the latents, worst first."""
    against: Bool[np.ndarray, " pair"] = (seen.scores.missed | seen.scores.contradicted)[:, list(latents)].any(1)
    order = np.argsort(-misfit(seen.scores, seen.clip), kind="stable")
    return order[against[order]]


def _in_turns(codes: Float[np.ndarray, "pair d_sae"], latents: Sequence[int]) -> Int[np.ndarray, " ranked"]:
    """Return the pairs on which one of the latents is strong, in turns by latent."""
    turns = [np.flatnonzero(column) for column in strong(codes[:, list(latents)], 0.25).T]
    longest = max(map(len, turns), default=0)
    order = [turn[n] for n in range(longest) for turn in turns if n < len(turn)]
    return np.array(list(dict.fromkeys(order)), dtype=np.int64)


def _codes(clip: HookedCLIP, dictionary: Dictionary, corpus: Corpus) -> Float[np.ndarray, "pair d_sae"]:
    with torch.no_grad():
        found: np.ndarray = sample_codes(clip, dictionary, "image", corpus.inputs[0]).numpy()
    return found


def _first(scores: PairScores, count: int) -> PairScores:
    parts = (scores.misses, scores.contradicts, scores.missed, scores.contradicted)
    return PairScores(*(part[:count] for part in parts), scores.rate_image, scores.rate_text)
