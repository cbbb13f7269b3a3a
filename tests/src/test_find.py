"""A good candidate goes with the words more than the best of unrelated latents does."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cliplens.errors import UnknownNameError
from cliplens.records import Column, LatentTable, SparseCodes
from cliplens.run.captioned import CaptionedRows
from cliplens.run.chance import reached_by_chance
from cliplens.run.find import GOOD, Candidate, Finder, name_matches


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


def test_a_word_of_some_pictures_with_five_captions_each_is_shuffled_between_pictures_not_captions() -> None:
    rng, reached, by_row = np.random.default_rng(0), 0, 0
    for seed in range(40):
        codes = SparseCodes.from_dense(sparse(60, 60, 0.1, seed).dense().repeat_interleave(5, 0))
        said = np.repeat(rng.random(60) < 0.2, 5) & (rng.random(300) < 0.7)
        found = best(codes, said)
        reached += found > reached_by_chance(codes, said, units=np.repeat(np.arange(60), 5).tolist())
        by_row += found > reached_by_chance(codes, said)
    assert reached <= 6  # 2 of 40, and three standard errors
    assert by_row > 30


def test_without_units_every_row_is_one() -> None:
    codes, said = sparse(156, 60, 0.1, 0), np.arange(156) % 9 == 0
    assert reached_by_chance(codes, said, units=list(range(156, 0, -1))) == reached_by_chance(codes, said)


@pytest.mark.parametrize(
    ("word", "caption", "said"),
    [
        ("c++", "code in C++ and C", True),
        ("\N{ARTIST PALETTE}", "\N{ARTIST PALETTE} a ring", True),
        ("red", "a tired man", False),
    ],
)
def test_a_word_may_begin_and_end_with_a_sign(word: str, caption: str, said: bool) -> None:
    table = LatentTable({"name": np.array([caption], dtype=object)}, {"name": Column("name", "A name.")})
    assert bool(name_matches(table, word)[0][0] > 0) == said


class Searched(Finder):
    """A finder over pairs of which the codes are given."""

    def _text_codes(self, words: str) -> np.ndarray:
        return np.full(len(self.run.table), np.nan)


def searched(codes: SparseCodes, captions: list[str], images: list[str]) -> Finder:
    ids = [f"{image}#{row}" for row, image in enumerate(images)]
    table = LatentTable({"latent": np.arange(codes.d_sae)}, {"latent": Column("latent", "Its number.")})
    pairs = SimpleNamespace(
        image_ids=images, caption_ids=captions, indices=lambda asked: {i: ids.index(i) for i in asked}
    )
    finder = Searched(SimpleNamespace(table=table, pairs=pairs, folder=None, asked=None, dictionary=None))
    finder.__dict__["_rows"] = CaptionedRows(codes, ids, captions, finder._units(ids))
    return finder


def test_a_word_that_has_nothing_to_do_with_pictures_of_five_captions_is_refused_with_the_true_reason() -> None:
    rng, codes = np.random.default_rng(0), sparse(60, 60, 0.1, 0).dense()
    said = np.repeat(rng.random(60) < 0.2, 5)
    captions = [f"zorgle {row}" if one else f"a ring {row}" for row, one in enumerate(said)]
    finder = searched(
        SparseCodes.from_dense(codes.repeat_interleave(5, 0)), captions, [f"p{row // 5}" for row in range(300)]
    )
    with pytest.raises(
        UnknownNameError, match=f"{said.sum()} captions with it among 300, a highest correlation of .* by chance"
    ):
        finder.find("zorgle")
    with pytest.raises(UnknownNameError, match="0 captions with 'blue', where 10 are needed"):
        finder.find("blue")


def test_a_caption_with_a_latent_of_its_own_is_found_though_shuffles_reach_as_much() -> None:
    """Names of classes as captions: whichever word is drawn, a latent fires for exactly its captions."""
    words = ["red", "blue", "green", "pink"]
    codes = SparseCodes.from_dense(torch.eye(4).repeat(15, 1))
    of_pictures = searched(codes, words * 15, words * 15)
    of_captions = Searched(of_pictures.run, "text")
    of_captions.__dict__["_rows"] = of_pictures._rows
    (best, *_) = of_captions.find("pink")
    assert (best.latent, best.good, best.needed) == (3, True, 0.9)
    assert of_pictures._needed(of_pictures._rows.saying({"pink"})) > 0.99  # four pictures tell nothing


def test_captions_are_counted_and_not_their_rows() -> None:
    captions = ["a zorgle"] * 16 + [f"a ring {row // 16}" for row in range(16, 320)]
    finder = searched(sparse(320, 20, 0.3, 0), captions, [f"p{row // 16}" for row in range(320)])
    finder.__dict__["_rows"] = replace(finder._rows, ids=[f"p{row // 16}#0" for row in range(320)])
    with pytest.raises(UnknownNameError, match="1 captions with 'zorgle', where 10 are needed"):
        finder.find("zorgle")


def test_codes_of_captions_are_shuffled_by_text_where_few_texts_differ() -> None:
    codes, images = sparse(12, 4, 0.3, 0), [f"p{row}" for row in range(12)]
    finder = searched(codes, ["a ring", "a disc"] * 6, images)
    assert finder._units([f"p{row}#{row}" for row in range(12)]) == images
    assert len(set(Searched(finder.run, "text")._units([f"p{row}#{row}" for row in range(12)]))) == 2
