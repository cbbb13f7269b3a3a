"""The word of a latent, and the classes of kinds of words, against planted truths and slow references."""

import numpy as np
import pytest

from cliplens.studies import ScoredClasses
from cliplens_plugins.words.kinds import kind_shares, split_by_picture
from cliplens_plugins.words.presence import LatentWords, correlations, latent_words, words_of
from cliplens_plugins.words.taggers import Kind


class Stub:
    """Words of one letter are nouns, the others adjectives."""

    name = "stub"
    language = None

    def tagged(self, caption: str) -> list[tuple[str, Kind]]:
        return [(w, "noun" if len(w) == 1 else "adjective") for w in caption.split()]


def test_words_stand_in_enough_captions_and_not_in_all() -> None:
    found = words_of(["a b", "a cc", "a cc b", "a b"], Stub(), least=2)
    assert found.words == ("b", "cc")
    assert found.kinds == ("noun", "adjective")
    assert found.present.T.tolist() == [[True, False, True, True], [False, True, True, False]]


def test_correlations_are_pearsons_and_0_where_one_is_constant() -> None:
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.random((40, 3)), np.full((40, 1), 0.3)], 1).astype(np.float32)
    present = np.concatenate([rng.random((40, 2)) < 0.4, np.ones((40, 1), bool)], 1)
    found = correlations(codes, present)
    for k in range(3):
        for w in range(2):
            slow = np.corrcoef(codes[:, k].astype(float), present[:, w])[0, 1]
            assert found[k, w] == pytest.approx(slow, abs=1e-12)
    assert (found[3] == 0).all()
    assert (found[:, 2] == 0).all()
    assert correlations(codes[:0], present[:0]).shape == (4, 3)


def test_a_latent_gets_the_word_that_either_modality_follows() -> None:
    rng = np.random.default_rng(1)
    present = rng.random((400, 5)) < 0.3
    image, text = rng.random((2, 400, 4)) * 0.1
    image[:, 0] += present[:, 3]
    text[:, 1] += present[:, 2]
    chosen_on = np.arange(400) % 2 == 0
    image[:, 2] += present[:, 4] * chosen_on  # follows the word only where it is chosen: no evidence
    found = latent_words(image, text, present, chosen_on)
    assert found.word.tolist() == [3, 2, -1, -1]
    slow = np.corrcoef(image[~chosen_on, 0], present[~chosen_on, 3])[0, 1]
    assert found.strength[0] == pytest.approx(slow)
    assert np.isnan(found.strength[2:]).all()
    assert latent_words(image, text, present[:, :0], chosen_on).word.tolist() == [-1] * 4


def planted(classes: list[str]) -> tuple[LatentWords, list[Kind], ScoredClasses]:
    """Ten nouns and ten adjectives with three latents each, and twenty latents without a word."""
    word = np.concatenate([np.repeat(np.arange(20), 3), np.full(20, -1)])
    kinds: list[Kind] = [*["noun"] * 10, *["adjective"] * 10]  # type: ignore[list-item]
    rates = np.random.default_rng(0).permutation(np.linspace(0.05, 0.3, 80))
    return LatentWords(word, np.where(word < 0, np.nan, 0.5)), kinds, ScoredClasses(np.array(classes), rates)


def test_a_planted_difference_is_found_with_its_controls() -> None:
    found = kind_shares(*planted(["CrossD"] * 30 + ["TextD"] * 30 + ["ImgD"] * 20), draws=400, random_sets=50)
    of = {(s.kind, s.modality): s for s in found}
    cross = of["noun", "CrossD"]
    assert (cross.words, cross.latents, cross.share, cross.low, cross.high) == (10, 30, 1, 1, 1)
    assert cross.p < 0.01
    assert cross.shuffled_high < 1
    assert 0.2 < cross.random < 0.6
    assert cross.random_high < 1
    assert of["adjective", "CrossD"].share == 0
    none = of["verb", "TextD"]
    assert none.latents == 0
    assert all(np.isnan(v) for v in (none.share, none.low, none.p, none.random))


def test_dead_latents_do_not_count_and_few_words_have_no_interval() -> None:
    word = np.array([0, 0, 1, 1, 2])
    scored = ScoredClasses(np.array(["ImgD", "dead", "ImgD", "TextD", "TextD"]), np.array([0.1, 0, 0.1, 0.1, 0.1]))
    found = kind_shares(LatentWords(word, np.full(5, 0.5)), ["noun", "noun", "verb"], scored, draws=50, random_sets=5)
    noun = next(s for s in found if (s.kind, s.modality) == ("noun", "ImgD"))
    assert (noun.words, noun.latents) == (2, 3)
    assert noun.share == pytest.approx(2 / 3)
    assert np.isnan(noun.low)


def test_without_a_difference_p_is_below_5_percent_about_as_often() -> None:
    rng = np.random.default_rng(3)
    small = 0
    for seed in range(60):
        drawn = [str(c) for c in rng.choice(["ImgD", "TextD", "CrossD"], 80)]
        found = kind_shares(*planted(drawn), draws=99, random_sets=1, seed=seed)
        small += next(s for s in found if (s.kind, s.modality) == ("noun", "CrossD")).p <= 0.05
    assert small <= 8  # 60 x .05 = 3; more than 8 has probability .004


def test_captions_of_one_picture_lie_on_one_side() -> None:
    pictures = [f"p{n // 3}" for n in range(300)]
    found = split_by_picture(pictures)
    assert (found.reshape(100, 3) == found.reshape(100, 3)[:, :1]).all()
    assert 30 < found.reshape(100, 3)[:, 0].sum() < 70
    assert (split_by_picture(pictures, 1) != found).any()
