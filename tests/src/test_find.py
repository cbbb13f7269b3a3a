"""A good candidate goes with the words more than the best of unrelated latents does."""

import numpy as np
import pytest

from cliplens.run.find import GOOD, Candidate, correlation_by_chance


@pytest.mark.parametrize(("pairs", "latents", "share"), [(240, 384, 0.07), (1000, 64, 0.3)])
def test_unrelated_latents_reach_it_in_one_of_twenty_cases_at_most(pairs: int, latents: int, share: float) -> None:
    rng, needed, reached = np.random.default_rng(0), correlation_by_chance(pairs, latents), 0
    for _ in range(200):
        said = np.zeros(pairs)
        said[: int(share * pairs)] = 1
        codes = rng.normal(size=(pairs, latents))
        codes -= codes.mean(0)
        found = (said - said.mean()) @ codes / pairs / said.std() / codes.std(0)
        reached += found.max() >= needed
    assert reached <= 0.09 * 200  # 5 %, and three standard errors
    assert reached >= 1


def test_nothing_is_reached_without_pairs_and_nothing_beyond_one() -> None:
    assert correlation_by_chance(0, 10) == 0
    assert correlation_by_chance(10, 0) == 0
    assert correlation_by_chance(2, 10_000) == 1


def test_evidence_is_held_against_what_is_needed_and_without_evidence_the_name_decides() -> None:
    def candidate(name_match: float, evidence: float, needed: float = GOOD) -> Candidate:
        return Candidate(1, "red", name_match, 1.0, evidence, 1.0, 1.0, needed)

    assert candidate(0.0, GOOD).good
    assert not candidate(1.0, GOOD, 0.24).good
    assert candidate(0.0, 0.24, 0.24).good
    assert candidate(1.0, np.nan, 0.24).good
    assert not candidate(0.5, np.nan).good
