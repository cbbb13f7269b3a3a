"""Judge names with a `View`, which computes the match of a name and a sample without asking a model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cliplens.records import Evidence
from cliplens.sites import Modality
from cliplens_plugins.autointerp.name_tests import TESTS, NameJudge, Names, Scores
from cliplens_plugins.autointerp.near_misses import near_misses
from cliplens_plugins.autointerp.ranks import Ranks, auroc_rows
from cliplens_plugins.autointerp.space import SilentSamples, blocks, exemplars_of, filled
from cliplens_plugins.autointerp.views import View


class ViewJudge(NameJudge):
    """Scores names by their match with samples in a `View`, many latents at a time.

    Args:
        view: computes the match of names and samples.
        evidence: held-out samples.
        near: indices of each latent's neighbours, for near misses.
        at_least: minimum number of held-out top samples of a latent to be tested.
    """

    def __init__(self, view: View, evidence: Evidence, near: Int[np.ndarray, "d_sae near"], at_least: int) -> None:
        self.judge, self.circular, self.modalities = view.judge, view.circular, view.modalities
        self._view, self._evidence, self._near, self._at_least = view, evidence, near, at_least

    def scores(self, lists: Sequence[Names], target: Modality) -> list[Scores]:
        """Return the scores of all tests for each list of names."""
        found = [{test: np.full(self._evidence.d_sae, np.nan) for test in TESTS} for _ in lists]
        exemplars = exemplars_of(self._evidence, target)
        if exemplars is None:
            return list(found)
        names = np.array(
            [[-1 if n is None else self._view.name_indices[n] for n in given] for given in lists], dtype=np.int64
        )
        at = filled(exemplars.at)
        latents = np.flatnonzero(((at >= 0).sum(axis=1) >= self._at_least) & (names >= 0).any(axis=0))
        silent = SilentSamples(self._evidence, target)
        for block in blocks(len(latents), (1 + self._near.shape[1]) * at.shape[1] * self._view.numbers_each):
            here = latents[block]
            tested = self._block(at, here, names[:, here], target, silent.mask(here))
            for n, scores in enumerate(tested):
                named = names[n, here] >= 0
                for test, values in scores.items():
                    found[n][test][here[named]] = values[named]
        return list(found)

    def _block(
        self,
        at: Int[np.ndarray, "d_sae top"],
        latents: Int[np.ndarray, " latent"],
        names: Int[np.ndarray, "list latent"],
        target: Modality,
        silent: Bool[np.ndarray, "latent background"],
    ) -> list[dict[str, Float[np.ndarray, " latent"]]]:
        """Return the scores of a block of latents."""
        top, misses = at[latents], near_misses(at, latents, self._near)
        matches = self._view.match_exemplars(target, np.maximum(names, 0), np.concatenate([top, misses], axis=1))
        count, valid, missed = top.shape[1], top >= 0, misses >= 0
        found = []
        for n, row in enumerate(np.maximum(names, 0)):
            inside = matches[n, :, :count]
            ranks = Ranks.of(inside, valid, self._view.match_background(target, row), silent)
            fuzzed = auroc_rows(inside, valid, matches[n, :, count:], missed)
            found.append({"detection": ranks.auroc(), "fuzzing": fuzzed, "intruder": ranks.intruder()})
        return found
