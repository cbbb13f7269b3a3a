"""Tests of names: right names hold, shuffled names sit at chance, intervals cover, halves share no pair."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliplens import registry
from cliplens.contracts import Judge, Scorer
from cliplens.naming import name_latents, split_evidence
from cliplens.records import Evidence, Findings, Name, Pair, PairedActs
from cliplens.statistics import auroc, auroc_interval, mean_interval
from cliplens_plugins.autointerp import HeldOutScorer, VocabularyNamer, shuffle_names, space
from cliplens_plugins.autointerp.background_ranks import _ranks
from cliplens_plugins.autointerp.fit_questions import FitQuestion
from cliplens_plugins.autointerp.heldout import TITLE
from cliplens_plugins.autointerp.near_misses import near_misses, neighbours
from cliplens_plugins.autointerp.ranks import Ranks
from cliplens_plugins.autointerp.space import SilentSamples
from support.evidence import WORDS, planted_embed, planted_evidence

RIGHT = [Name(w, 0.9) for w in WORDS] + [Name(None, float("nan"))]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return planted_evidence(n=1200)


def lines(evidence: Evidence, names: Sequence[Name] = RIGHT, **options: object) -> list[dict[str, object]]:
    scorer = HeldOutScorer(**options)  # type: ignore[arg-type]
    return list(scorer.score(names, names, evidence, planted_embed(evidence)).tables[TITLE])  # type: ignore[arg-type]


def test_it_is_what_its_entry_point_says() -> None:
    assert isinstance(registry.find("scorers", "held_out").make(Scorer), HeldOutScorer)


def test_right_names_hold_in_every_test_and_shuffled_ones_sit_at_chance(evidence: Evidence) -> None:
    for line in lines(evidence):
        assert line["names"] == len(WORDS)
        assert line["score"] > 0.8, line  # type: ignore[operator]
    detection = [line for line in lines(evidence) if line["test"] == "detection" and line["judge"] != "words"]
    assert np.mean([line["shuffled names"] for line in detection]) == pytest.approx(0.5, abs=0.1)


def test_words_judge_captions_only_and_without_the_model(evidence: Evidence) -> None:
    found = HeldOutScorer().score(RIGHT, RIGHT, evidence, None)
    assert {(row["judge"], row["tested on"]) for row in found.tables[TITLE]} == {("words", "captions")}
    assert "name_image_score" not in found.columns
    np.testing.assert_array_equal(found.columns["name_text_score"][:-1], 1.0)


def test_the_model_judging_itself_is_called_circular(evidence: Evidence) -> None:
    found = HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence))
    assert any("circular" in note for note in found.notes)
    assert any("(circular)" in str(row["judge"]) for row in found.tables[TITLE])
    schema = {c.name: c for c in found.schema}
    assert "circular" in schema["name_image_score"].about
    assert "circular" not in schema["name_text_score"].about


def test_an_independent_judge_is_preferred_and_silences_the_note(evidence: Evidence) -> None:
    found = HeldOutScorer(judges=(ByCaption(evidence),)).score(RIGHT, RIGHT, evidence, planted_embed(evidence))
    assert found.notes == ()
    assert "'oracle'" in {c.name: c for c in found.schema}["name_image_score"].about
    assert (found.columns["name_image_score"][:-1] > 0.9).all()


def test_cross_modal_columns(evidence: Evidence) -> None:
    found = HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence))
    assert (found.columns["name_image_on_captions"][:-1] > 0.9).all()
    assert (found.columns["name_text_on_images"][:-1] > 0.9).all()
    assert np.isnan(found.columns["name_text_on_images"][-1])


def test_all_columns_have_a_schema_and_limits_hold_the_score(evidence: Evidence) -> None:
    found = HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence))
    assert {c.name for c in found.schema} == set(found.columns)
    c = found.columns
    for side in ("name_image", "name_text"):
        assert (c[f"{side}_score_low"][:-1] <= c[f"{side}_score"][:-1]).all()
        assert (c[f"{side}_score"][:-1] <= c[f"{side}_score_high"][:-1]).all()


def test_nothing_named_gives_no_table_rows(evidence: Evidence) -> None:
    nothing = [Name(None, float("nan"))] * evidence.d_sae
    assert lines(evidence, nothing) == []


def test_halves_share_no_pair_and_lose_none(evidence: Evidence) -> None:
    left, right = split_evidence(evidence)
    for side in ("images", "texts"):
        whole, one, two = (getattr(e, side) for e in (evidence, left, right))
        for k in range(evidence.d_sae):
            ids = [{p.id for p, _ in e.of(k)} for e in (whole, one, two)]
            assert ids[1] | ids[2] == ids[0]
            assert not ids[1] & ids[2]
            values = [v for _, v in one.of(k)]
            assert values == sorted(values, reverse=True)
        assert 0.4 < len(one.pairs) / len(whole.pairs) < 0.6
    assert {p.id for p in left.background}.isdisjoint(p.id for p in right.background)
    assert left.background_acts is not None
    assert left.background_acts.ids == tuple(p.id for p in left.background)
    assert left.background_codes is not None
    assert left.background_codes.ids == left.background_acts.ids


def test_the_half_for_names_is_gone_when_they_are_tested(evidence: Evidence) -> None:
    seen: list[weakref.ref[Evidence]] = []

    class Namer(VocabularyNamer):
        def from_captions(self, evidence: Evidence) -> list[Name]:
            seen.append(weakref.ref(evidence))
            return super().from_captions(evidence)

    class Tester(HeldOutScorer):
        def score(self, *given: Any) -> Findings:
            assert seen[0]() is None
            assert given[2].images.pairs == split_evidence(evidence)[1].images.pairs  # type: ignore[union-attr]
            return super().score(*given)

    name_latents(evidence, Namer(), scorers=[Tester()], embed=planted_embed(evidence))
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_rows_are_a_copy(dtype: torch.dtype) -> None:
    given = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=dtype)
    np.testing.assert_allclose(space.unit_array(given), [[0.6, 0.8], [0.0, 0.0]])
    rows = given.double().numpy()
    np.testing.assert_allclose(space.unit(rows), [[0.6, 0.8], [0.0, 0.0]])
    assert given.tolist() == rows.tolist() == [[3.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_unit_rows_made_when_asked_for_equal_those_made_at_once(dtype: torch.dtype) -> None:
    given = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    given[3] = 0
    at, centre = np.array([[0, 3], [-1, 7]]), np.arange(5.0)
    every = space.unit_array(given)
    np.testing.assert_array_equal(space.UnitRows(given)[at], every[at])
    np.testing.assert_array_equal(space.UnitRows(given, centre)[at], (every - centre)[at])


@pytest.mark.parametrize("tested", [False, True])
def test_namers_get_float32_of_embeddings_that_are_held_in_float16(evidence: Evidence, tested: bool) -> None:
    rows = evidence.image_acts.half()  # type: ignore[union-attr]
    seen: list[torch.dtype] = []

    class Seeing(VocabularyNamer):
        def from_images(self, evidence: Evidence) -> list[Name]:
            seen.append(evidence.image_acts.dtype)  # type: ignore[union-attr]
            return super().from_images(evidence)

    found = [
        name_latents(replace(evidence, image_acts=acts), Seeing(), scorers=[HeldOutScorer()] if tested else []).columns
        for acts in (rows, rows.float())
    ]
    assert seen == [torch.float32] * 2
    assert found[0]["name_image"].tolist() == found[1]["name_image"].tolist()


def test_embeddings_follow_their_pairs_into_the_halves(evidence: Evidence) -> None:
    place = {p.id: n for n, p in enumerate(evidence.images.pairs)}  # type: ignore[union-attr]
    for half in split_evidence(evidence):
        rows = torch.tensor([place[p.id] for p in half.images.pairs])  # type: ignore[union-attr]
        assert torch.equal(half.image_acts, evidence.image_acts[rows])  # type: ignore[arg-type, index]


def test_names_and_tests_together(evidence: Evidence) -> None:
    found = name_latents(evidence, VocabularyNamer(), scorers=[HeldOutScorer()], embed=planted_embed(evidence))
    assert found.columns["name"].tolist() == [*WORDS, "unnamed"]
    assert found.figures["names_from_images_on_captions"] > 0.9
    np.testing.assert_array_equal(found.columns["name_score_low"], found.columns["name_text_score_low"])
    assert (found.columns["name_score"][:-1] > 0.9).all()


def test_shuffled_names_differ_from_the_right_ones_and_stay_the_same_set() -> None:
    names = ["a", "b", "c", None, "d", "a"]
    shuffled = shuffle_names(names)
    assert shuffled[3] is None
    assert all(s != n for s, n in zip(shuffled, names, strict=True) if n)
    assert {s for s in shuffled if s} <= {"a", "b", "c", "d"}
    assert shuffle_names(["a", "a"]) == [None, None]


def test_neighbours_are_the_nearest_living_rows() -> None:
    decoder = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0.8, 0.2], [1, 0.01]])
    near = neighbours(decoder, np.array([True, True, True, True, False]), 2)
    assert near[0].tolist() == [1, 3]
    assert 4 not in near
    assert near[4].tolist() == [-1, -1]


def test_near_misses_are_no_top_samples_of_the_latent(evidence: Evidence) -> None:
    assert evidence.images is not None
    at = evidence.images.at
    near = np.tile([[1, 5]], (evidence.d_sae, 1))
    near[7] = -1
    for k, misses in zip((0, 3, 7), near_misses(at, np.array([0, 3, 7]), near), strict=True):
        theirs = set() if k == 7 else set(at[1]) | set(at[5])
        assert {int(m) for m in misses if m >= 0} == theirs - set(at[k]) - {-1}


@pytest.mark.parametrize(("true", "m", "n"), [(0.5, 10, 200), (0.8, 10, 40), (0.95, 20, 100), (0.7, 50, 50)])
def test_auroc_intervals_cover(true: float, m: int, n: int) -> None:
    """Binormal samples with the given AUROC: the 95 % interval holds it in about 95 % of 400 draws."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    shift = np.sqrt(2) * norm.ppf(true)
    covered = 0
    for _ in range(400):
        low, high = auroc_interval(auroc(rng.normal(shift, 1, m), rng.normal(0, 1, n)), m, n)
        covered += low <= true <= high
    assert 0.91 <= covered / 400 <= 0.99


def test_intervals_at_the_ends_have_a_width() -> None:
    low, high = auroc_interval(1.0, 10, 100)
    assert 0.6 < low < 1 == high
    assert np.isnan(auroc_interval(float("nan"), 3, 3)).all()


def test_mean_interval_ignores_nan() -> None:
    mean, low, high = mean_interval(np.array([0.2, np.nan, 0.4]))
    assert mean == pytest.approx(0.3)
    assert low <= mean <= high
    assert np.isnan(mean_interval(np.array([np.nan]))).all()


class ByCaption(Judge):
    """An oracle that sees the words a picture was made of, through the pair's id."""

    name = "oracle"

    def __init__(self, evidence: Evidence) -> None:
        assert evidence.images is not None
        self._said = {p.id: p.caption or "" for p in (*evidence.images.pairs, *evidence.background)}

    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        said = captions if captions is not None else [self._said[i] for i in ids]
        rows = torch.tensor([[float(w in text) for w in WORDS] for text in said])
        return PairedActs(tuple(ids), rows if images is not None else None, rows if captions is not None else None)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_of_many_latents_equal_the_definition_of_one(seed: int) -> None:
    """AUROC by pairs, and the intruder test by all choices of one negative and four positives, with ties."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 6, (12, 7)).astype(float), rng.integers(-2, 5, (12, 9)).astype(float)
    valid, kept = rng.uniform(size=positive.shape) < 0.8, rng.uniform(size=negative.shape) < 0.8
    valid[0], kept[1] = False, False
    positive[2, 0], valid[2, 0] = np.nan, True
    ranks = Ranks.of(positive, valid, negative, kept)
    for k in range(len(positive)):
        up, down = positive[k, valid[k]], negative[k, kept[k]]
        np.testing.assert_equal(ranks.auroc()[k], auroc(up, down))
        if k != 2:
            rounds = [d < min(four) for four in combinations(up, 4) for d in down]
            expected = np.mean(rounds) if rounds else np.nan
            np.testing.assert_allclose(ranks.intruder()[k], expected, atol=1e-12)


def test_scores_do_not_depend_on_how_many_latents_are_in_a_block(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence)).columns
    monkeypatch.setattr(space, "_BLOCK_NUMBERS", 1)
    for name, values in HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence)).columns.items():
        np.testing.assert_array_equal(values, whole[name])


def test_silent_samples_are_those_without_a_code(evidence: Evidence) -> None:
    silent = SilentSamples(evidence, "text")
    assert evidence.background_codes is not None
    assert evidence.background_codes.text is not None
    dense = evidence.background_codes.text.dense().numpy()
    for k in range(evidence.d_sae):
        np.testing.assert_array_equal(silent.of(k), np.flatnonzero(dense[:, k] == 0))
    np.testing.assert_array_equal(silent.mask(np.arange(evidence.d_sae)), dense.T == 0)
    np.testing.assert_array_equal(silent.counts, (dense == 0).sum(axis=0))


def test_a_judge_of_given_pairs_alone_is_not_asked_about_words(evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.images is not None
    ids = sorted({p.id for p in (*evidence.images.pairs, *evidence.background)})
    rows = np.random.default_rng(0).normal(size=(len(ids), 4))
    np.savez(tmp_path / "judge.npz", ids=np.array(ids), image=rows, text=rows)
    judge = registry.judge(f"file:{tmp_path / 'judge.npz'}")
    found = HeldOutScorer().score(RIGHT, RIGHT, evidence, planted_embed(evidence), judges=[judge])
    assert {str(row["judge"]) for row in found.tables[TITLE]} == {"words", "clip (circular)"}
    assert any("'file' cannot embed words" in note for note in found.notes)


def test_further_captions_of_a_picture_stay_in_its_half(evidence: Evidence) -> None:
    assert evidence.texts is not None
    pairs = tuple(replace(p, image_id=f"picture {n // 5}") for n, p in enumerate(evidence.texts.pairs))
    several = replace(evidence, texts=replace(evidence.texts, pairs=pairs))
    left, right = ({p.image_id for p in half.texts.pairs} for half in split_evidence(several))  # type: ignore[union-attr]
    assert left
    assert right
    assert left.isdisjoint(right)


def test_an_intruder_tied_with_a_top_sample_is_not_found() -> None:
    pair = Pair("p", None, "a caption")
    kinds = ("top",) * 4 + ("silent",)
    asked = FitQuestion(0, "a name", "text", tuple((kind, pair) for kind in kinds))
    assert asked.scores([0.9, 0.8, 0.7, 0.6, 0.5])["intruder"] == 1.0
    assert asked.scores([0.9, 0.8, 0.7, 0.5, 0.5])["intruder"] == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_ranks_among_the_background_equal_ranks_with_firing_samples_left_out(seed: int) -> None:
    """Shared names, ties, a name without a match for one sample, and latents that fire everywhere and nowhere."""
    rng = np.random.default_rng(seed)
    matches, n = rng.integers(0, 6, (5, 9)).astype(float), 24
    matches[0, 3] = np.nan
    which, valid = rng.integers(0, 5, n), rng.uniform(size=(n, 7)) < 0.8
    positive = rng.integers(0, 7, (n, 7)).astype(float)
    positive[2, 0], valid[2, 0] = np.nan, True
    fires = rng.uniform(size=(n, 9)) < 0.3
    fires[0], fires[1] = True, False
    entry, row = np.nonzero(fires)
    found = _ranks(matches, which, positive, valid, entry, row)
    slow = Ranks.of(positive, valid, matches[which], ~fires)
    np.testing.assert_array_equal(found.auroc(), slow.auroc())
    np.testing.assert_array_equal(found.intruder(), slow.intruder())


def test_few_of_very_many_latents_can_be_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 6)))
    monkeypatch.setattr("cliplens_plugins.autointerp.near_misses.MOST", 10)
    near = neighbours(decoder, np.arange(40) != 3, 4)
    assert near.shape == (40, 4)
    assert len(np.unique(near[near >= 0])) <= 10
    assert all(k not in row for k, row in enumerate(near))
    cosine = torch.nn.functional.normalize(decoder, dim=1) @ torch.nn.functional.normalize(decoder, dim=1).T
    allowed = np.unique(near[near >= 0])
    if len(allowed) == 10:
        for k in range(40):
            others = [int(j) for j in allowed if j != k]
            best = sorted(others, key=lambda j: -float(cosine[k, j]))[:4]
            assert k == 3 or near[k].tolist() == best
