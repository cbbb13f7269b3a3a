"""The vocabulary namer on evidence whose names are known by construction."""

import dataclasses

import numpy as np
import pytest

from cliplens.naming import name_latents
from cliplens.records import Evidence, Exemplars, Name
from cliplens_plugins.autointerp import VocabularyNamer
from cliplens_plugins.autointerp.nearest_word import nearest_words
from support.evidence import WORDS, planted_evidence


def texts_of(names: list[Name]) -> list[str | None]:
    return [n.text for n in names]


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_finds_planted_names_in_each_modality_alone(seed: int, background: bool) -> None:
    evidence = planted_evidence(seed=seed, background=background)
    namer = VocabularyNamer()
    without_texts = dataclasses.replace(evidence, texts=None, text_acts=None)
    without_images = dataclasses.replace(evidence, images=None, image_acts=None, vocabulary_acts=None)
    assert texts_of(namer.from_images(without_texts)) == [*WORDS, None]
    assert texts_of(namer.from_captions(without_images)) == [*WORDS, None]


def test_a_modality_without_samples_gives_no_names() -> None:
    evidence = dataclasses.replace(planted_evidence(), images=None, texts=None)
    assert texts_of(VocabularyNamer().from_images(evidence)) == [None] * evidence.d_sae
    assert texts_of(VocabularyNamer().from_captions(evidence)) == [None] * evidence.d_sae


def test_a_latent_with_too_few_samples_is_unnamed() -> None:
    evidence = planted_evidence()
    rare = _only_first(evidence, 2)
    assert VocabularyNamer().from_images(rare)[0].text is None
    assert VocabularyNamer().from_captions(rare)[0].text is None
    assert VocabularyNamer().from_captions(rare)[1].text == WORDS[1]


def test_random_samples_are_unnamed_or_score_near_chance() -> None:
    evidence = planted_evidence()
    rng = np.random.default_rng(0)
    shuffled = {}
    for side in ("images", "texts"):
        exemplars = getattr(evidence, side)
        at = rng.integers(0, len(exemplars.pairs), exemplars.at.shape)
        shuffled[side] = Exemplars(exemplars.modality, exemplars.pairs, at, np.ones_like(exemplars.values))
    findings = name_latents(dataclasses.replace(evidence, **shuffled), VocabularyNamer())
    scores = findings.columns["name_image_score"]
    assert np.nanmean(np.append(scores, 0.5)) < 0.75
    assert (findings.columns["name"] == "unnamed").sum() >= 3


def test_held_out_scores_of_right_names_are_high() -> None:
    findings = name_latents(planted_evidence(), VocabularyNamer())
    assert (findings.columns["name_score"][:-1] > 0.7).all()
    assert np.isnan(findings.columns["name_score"][-1])
    assert (findings.columns["name_agreement"][:-1] == 1).all()


def test_function_words_lose_against_content_words_that_tell_as_much() -> None:
    evidence = planted_evidence()
    pairs = tuple(
        dataclasses.replace(p, caption=(p.caption or "").replace("red", "the red")) for p in evidence.texts.pairs
    )  # type: ignore[union-attr]
    texts = dataclasses.replace(evidence.texts, pairs=pairs)  # type: ignore[type-var]
    names = VocabularyNamer().from_captions(dataclasses.replace(evidence, texts=texts, background=()))
    assert names[0].text == "red"


def _only_first(evidence: Evidence, kept: int) -> Evidence:
    cut = {}
    for side in ("images", "texts"):
        exemplars = getattr(evidence, side)
        at = exemplars.at.copy()
        at[0, kept:] = -1
        cut[side] = dataclasses.replace(exemplars, at=at)
    return dataclasses.replace(evidence, **cut)


def test_a_word_near_to_every_direction_does_not_name_them() -> None:
    """Hubness: one word is the nearest to all by its product alone."""
    mean = np.array([0.0, 0.0, 0.0, 5.0])
    directions = np.eye(4)[:3] + mean
    words = np.concatenate([np.eye(4)[:3], np.full((1, 4), 0.9)])
    plain = (directions @ words.T).argmax(axis=1)
    order, nearness = nearest_words(lambda some: directions[some], len(directions), words, mean)
    again = nearest_words(lambda some: directions[some], len(directions), words)
    assert plain.tolist() == [3, 3, 3]
    assert order[:, 0].tolist() == [0, 1, 2]
    slow = directions @ words.T - words @ mean
    np.testing.assert_allclose(nearness, -np.sort(-slow, axis=1)[:, : nearness.shape[1]], atol=1e-12)
    slow = directions @ words.T - words @ directions.mean(axis=0)
    np.testing.assert_allclose(again[1], -np.sort(-slow, axis=1)[:, : nearness.shape[1]], atol=1e-12)
