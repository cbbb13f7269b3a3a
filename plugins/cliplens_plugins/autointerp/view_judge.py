"""Judge names with a `View`, which computes the match of a name and a sample without asking a model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cliplens.records import Evidence
from cliplens.sites import Modality
from cliplens_plugins.autointerp.background_ranks import background_ranks
from cliplens_plugins.autointerp.name_tests import TESTS, NameJudge, Names, Scores
from cliplens_plugins.autointerp.near_misses import near_misses
from cliplens_plugins.autointerp.ranks import auroc_rows
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
        inside = np.full((len(lists), len(latents), at.shape[1]), np.nan)
        for block in blocks(len(latents), (1 + self._near.shape[1]) * at.shape[1] * self._view.numbers_each):
            here = latents[block]
            inside[:, block], fuzzed = self._block(at, here, names[:, here], target)
            for n, scores in enumerate(fuzzed):
                found[n]["fuzzing"][here] = np.where(names[n, here] >= 0, scores, np.nan)
        self._against_silent(target, names, latents, inside, at[latents] >= 0, found)
        return list(found)

    def _block(
        self,
        at: Int[np.ndarray, "d_sae top"],
        latents: Int[np.ndarray, " latent"],
        names: Int[np.ndarray, "list latent"],
        target: Modality,
    ) -> tuple[Float[np.ndarray, "list latent top"], list[Float[np.ndarray, " latent"]]]:
        """Return the matches with top samples, and the scores of the fuzzing test, for a block of latents."""
        top, misses = at[latents], near_misses(at, latents, self._near)
        matches = self._view.match_exemplars(target, np.maximum(names, 0), np.concatenate([top, misses], axis=1))
        inside, missed = matches[:, :, : top.shape[1]], matches[:, :, top.shape[1] :]
        return inside, [auroc_rows(inside[n], top >= 0, missed[n], misses >= 0) for n in range(len(names))]

    def _against_silent(
        self,
        target: Modality,
        names: Int[np.ndarray, "list d_sae"],
        latents: Int[np.ndarray, " latent"],
        inside: Float[np.ndarray, "list latent top"],
        valid: Bool[np.ndarray, "latent top"],
        found: Sequence[dict[str, Float[np.ndarray, " d_sae"]]],
    ) -> None:
        """Fill in the scores of the detection and the intruder test."""
        which, place = np.nonzero(names[:, latents] >= 0)
        of = latents[place]
        silent = SilentSamples(self._evidence, target)
        asked = names[which, of]
        for here, ranks in background_ranks(self._view, target, asked, of, inside[which, place], valid[place], silent):
            detection, intruder = ranks.auroc(), ranks.intruder()
            for n, scores in enumerate(found):
                mine = which[here] == n
                scores["detection"][of[here[mine]]] = detection[mine]
                scores["intruder"][of[here[mine]]] = intruder[mine]
