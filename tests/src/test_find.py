"""A good candidate goes with the words more than the best of unrelated latents does."""

import numpy as np
import pytest
import torch

from cliplens.records import Column, LatentTable, SparseCodes
from cliplens.run.chance import reached_by_chance
from cliplens.run.find import GOOD, Candidate, name_matches


def sparse(rows: int, latents: int, rate: float, seed: int) -> SparseCodes:
    """Codes of which few are large, as those of a dictionary are."""
    draw = torch.Generator().manual_seed(seed)
    fires = torch.rand(rows, latents, generator=draw) < rate
    return SparseCodes.from_dense(torch.exp(2 * torch.randn(rows, latents, generator=draw)) * fires)


def best(codes: SparseCodes, said: np.ndarray) -> float:
    dense = codes.dense().double().numpy()
    centred = dense - dense.mean(0)
    spread = dense.std(0) * said.std()
    return float(((said - said.mean()) @ centred / len(said) / np.where(spread > 0, spread, np.inf)).max())


@pytest.mark.parametrize("rate", [0.03, 0.5])
def test_unrelated_latents_reach_it_in_one_of_twenty_cases_at_most(rate: float) -> None:
    rng, reached = np.random.default_rng(0), 0
    for seed in range(100):
        codes = sparse(156, 60, rate, seed)
        said = np.zeros(156, dtype=bool)
        said[rng.choice(156, 10, replace=False)] = True
        reached += best(codes, said) > reached_by_chance(codes, said)
    assert reached <= 13  # 5 of 100, and more than three standard errors


def test_few_large_codes_reach_more_and_nothing_is_reached_by_codes_that_do_not_vary() -> None:
    said = np.arange(156) < 10
    even = SparseCodes.from_dense(torch.rand(156, 60, generator=torch.Generator().manual_seed(0)))
    assert reached_by_chance(sparse(156, 60, 0.03, 0), said) > 1.2 * reached_by_chance(even, said)
    assert reached_by_chance(SparseCodes.from_dense(torch.ones(156, 4)), said) == 0
    assert reached_by_chance(SparseCodes.from_dense(torch.zeros(156, 4)), said) == 0


def test_evidence_is_held_against_what_is_needed_and_without_evidence_the_name_decides() -> None:
    def candidate(name_match: float, evidence: float, needed: float = GOOD) -> Candidate:
        return Candidate(1, "red", name_match, 1.0, evidence, 1.0, 1.0, needed)

    assert candidate(0.0, GOOD).good
    assert not candidate(1.0, GOOD, 0.24).good
    assert candidate(0.0, 0.24, 0.24).good
    assert candidate(1.0, np.nan, 0.24).good
    assert not candidate(0.5, np.nan).good


def test_only_trusted_latents_give_synonyms() -> None:
    table = LatentTable(
        {"name": np.array(["cat / clock", "cat / kitten", "dog"], dtype=object)}, {"name": Column("name", "A name.")}
    )
    matches, every = name_matches(table, "cat")
    assert matches.tolist() == [1.0, 1.0, 0.0]
    assert every == {"cat", "clock", "kitten"}
    assert name_matches(table, "cat", np.array([False, True, True]))[1] == {"cat", "kitten"}
