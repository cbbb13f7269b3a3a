"""Advice on data: scores on planted codes, the known answer on the world, decisions, the page and the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import cliplens
from cliplens.errors import InputError
from cliplens.run import OpenedRun
from cliplens.studies import Study, read_studies
from cliplens_plugins.advice import (
    Concept,
    clip_score,
    coverage,
    mention_rates,
    misfit,
    sae_v,
    score_pairs,
    sdm_choose,
    sdm_value,
    strong,
    well_matched,
)
from cliplens_plugins.advice.command import app
from cliplens_plugins.advice.known_answer import FACTORS, spoil
from cliplens_plugins.advice.of_run import Listed, known_answer, lists, see
from cliplens_plugins.advice.page import save_page
from support.factor_dictionary import factor_dictionary
from support.study_runs import study_run

NAN = (float("nan"),) * 3


def planted(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of 6 latents: 0 to 3 fire on the image and its caption alike, 4 on images only, 5 on captions only."""
    rng = np.random.default_rng(seed)
    shown = rng.random((n, 6)) < 0.3
    image, text = (shown * rng.uniform(0.5, 1.5, (n, 6)) for _ in range(2))
    image[:, 5] = 0
    text[:, 4] = 0
    return image, text


def test_a_caption_without_what_the_image_shows_is_found() -> None:
    image, text = planted()
    clean = score_pairs(image, text)
    assert clean.misses.max() == clean.contradicts.max() == 0  # latents of one modality alone accuse nobody
    assert clean.usable == pytest.approx(4 / 6)
    bad = np.flatnonzero(strong(image)[:, 1])[:4]
    text[bad, 1] = 0
    found = score_pairs(image, text)
    assert set(np.flatnonzero(found.misses)) == set(bad.tolist())
    assert found.of(int(bad[0]))[0] == [1]
    worse = np.flatnonzero(strong(text)[:, 2])[:4]
    image[worse, 2] = 0
    assert set(np.flatnonzero(score_pairs(image, text).contradicts)) == set(worse.tolist())


def test_captions_that_are_mostly_wrong_are_found_only_with_trusted_pairs() -> None:
    """Wrong captions lower the mention rate of their own concept: below one half, they hide themselves."""
    image, text = planted(400)
    bad = np.flatnonzero(strong(image)[:, 1])[::-1][: int(0.7 * strong(image)[:, 1].sum())]
    text[bad, 1] = 0
    clip = np.ones(400)
    clip[bad] = 0.5
    assert score_pairs(image, text).misses[bad].max() == 0
    found = score_pairs(image, text, trusted=well_matched(clip))
    assert set(np.flatnonzero(found.misses)) == set(bad.tolist())
    assert found.rate_image[1] == 1.0


def test_misfit_weighs_latents_and_clip_score_alike() -> None:
    image, text = planted(100)
    text[:5, :4] = 0
    scores, clip = score_pairs(image, text), np.random.default_rng(0).random(100)
    both = scores.misses + scores.contradicts
    wanted = [(b - both.mean()) / both.std() + (clip.mean() - c) / clip.std() for b, c in zip(both, clip, strict=True)]
    assert misfit(scores, clip) == pytest.approx(np.array(wanted))
    assert misfit(scores, np.full(100, 0.7)) == pytest.approx((both - both.mean()) / both.std())
    quiet = score_pairs(*planted(100))
    assert misfit(quiet, clip).argmax() == clip.argmin()


def sdm_objective(codes: np.ndarray, rows: list[int], weight: np.ndarray, balance: float, bins: np.ndarray) -> float:
    """The objective as it is written."""
    concepts = sum(weight[k] * np.log(1 + sum(codes[m, k] for m in rows)) for k in range(codes.shape[1]))
    quality = sum(u * np.log(1 + sum(bins[m] == b for m in rows)) for b, u in enumerate((0.0, 0.01, 0.99)))
    return float(balance * concepts + (1 - balance) * quality)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_distribution_matching_agrees_with_a_slow_version(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, target, quality = rng.random((9, 4)), rng.random((5, 4)), rng.random(9)
    weight, bins = target.sum(0) / target.sum(), np.argsort(np.argsort(quality)) * 3 // 9
    whole = sdm_objective(codes, list(range(9)), weight, 0.6, bins)
    lost = [whole - sdm_objective(codes, [m for m in range(9) if m != n], weight, 0.6, bins) for n in range(9)]
    assert sdm_value(codes, target, quality=quality, balance=0.6) == pytest.approx(np.array(lost))
    chosen: list[int] = []
    for _ in range(2):  # so few are chosen that every step tries all pairs: plain greedy
        gains = {n: sdm_objective(codes, [*chosen, n], weight, 0.6, bins) for n in range(9) if n not in chosen}
        chosen.append(max(gains, key=lambda n: gains[n]))
    assert sdm_choose(codes, target, 2, quality=quality, balance=0.6).tolist() == chosen


def test_distribution_matching_fills_what_is_missing() -> None:
    codes = np.eye(3)[[0] * 20 + [1] * 5 + [2] * 5]
    assert set(sdm_choose(codes, np.eye(3), 5, already=codes[:20])) <= set(range(20, 30))
    assert sorted(sdm_choose(codes, np.eye(3), 99).tolist()) == list(range(30))
    assert sdm_choose(codes, np.eye(3), 0).tolist() == []
    value = sdm_value(codes, np.eye(3))
    assert value[:20].max() < value[20:].min()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 80))
def test_mention_rates_agree_with_a_slow_version(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    image, text = (np.maximum(rng.normal(size=(n, 4)), 0) for _ in range(2))
    rates = mention_rates(image, text, least=2)
    for k in range(4):
        cut = sorted(image[:, k])[int(np.ceil(0.9 * (n - 1)))]
        rows = [m for m in range(n) if image[m, k] > 0 and image[m, k] >= cut]
        wanted = np.mean([text[m, k] > 0 for m in rows]) if len(rows) >= 2 else np.nan
        assert rates[k] == pytest.approx(wanted, nan_ok=True)


def test_rankings_of_others() -> None:
    rows = torch.eye(4)
    assert clip_score(rows, -rows).tolist() == [0.0] * 4
    image, text = planted(60)
    g = torch.Generator().manual_seed(0)
    concept = torch.as_tensor(image[:, :1] > 0) * 3.0 + 0.1 * torch.randn(60, 8, generator=g)
    score = sae_v(image, text, concept, concept)
    assert score[(image[:, 0] > 0) & (text[:, 0] > 0)].mean() > score[image[:, 0] == 0].mean()
    assert (sae_v(image[:4], text[:4], concept[:4], concept[:4]) == 0).all()


def test_coverage_finds_what_is_missing_and_not_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    target = np.full(40, 300)
    fair = coverage(rng.poisson(100, 40), 1000, target, 3000)
    assert fair.under_covered.sum() == 0
    poor = coverage(np.r_[rng.poisson(20, 5), rng.poisson(100, 35)], 1000, target, 3000)
    assert poor.under_covered[:5].all()
    assert not poor.under_covered[5:].any()
    assert (poor.low <= poor.ratio).all()
    assert (poor.ratio <= poor.high).all()
    assert np.isnan(coverage(np.array([3]), 10, np.array([0]), 10).ratio[0])
    assert coverage(np.array([0]), 200, np.array([100]), 200).low[0] == 0.0


@pytest.mark.parametrize(
    ("missed", "led", "under", "wanted"),
    [
        ((0.3, 0.2, 0.4), (-1.0, -2.0, -0.5), False, "rewrite captions"),
        ((0.3, 0.2, 0.4), (-1.0, -2.0, 0.5), False, "no advice"),
        ((0.3, 0.01, 0.4), (-1.0, -2.0, -0.5), False, "no advice"),
        ((0.3, 0.2, 0.4), (1.0, 0.5, 2.0), True, "collect images"),
        ((0.0, 0.0, 0.0), (1.0, 0.5, 2.0), False, "no advice"),
        (NAN, NAN, True, "no advice"),
        (NAN, (-1.0, -2.0, -0.5), False, "no advice"),
    ],
)
def test_decisions(missed: tuple, led: tuple, under: bool, wanted: str) -> None:
    assert Concept(0, missed, NAN, led, None, 0.1, under).decision == wanted


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", ["delete", "replace"])
def test_spoiled_captions_differ_in_one_word(factor: str, kind: str) -> None:
    from cliplens.world import captions, draw_scenes

    said = captions(draw_scenes(60, seed=3))
    spoiled, bad = spoil(said, factor, kind, 0.5)  # type: ignore[arg-type]
    assert 15 < bad.sum() < 45
    for before, after, changed in zip(said, spoiled, bad, strict=True):
        a, b = before.split(), after.split()
        assert (a == b) == (not changed)
        if changed:
            assert len(b) == len(a) - (kind == "delete")
            assert len([w for w in b if w not in a]) <= 1
    with pytest.raises(InputError, match="one adjective"):
        spoil(said, "shape", "delete")


def test_planted_bad_captions_are_recovered_on_the_world() -> None:
    """Latents that stand for the factors find spoiled captions better than chance, and the CLIP score finds them better
    still: in the world every clean pair fits almost perfectly. Where that changes, docs/advice.md has to change."""
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs("world:300:4")
    images = torch.stack([clip.preprocess(pairs[i].image) for i in range(300)])  # type: ignore[misc]
    captions = [str(pairs[i].caption) for i in range(300)]
    rows = known_answer(clip, factor_dictionary(), pairs.ids, captions, images, factors=("colour",))
    assert [row["spoiled"] for row in rows] == ["delete colour", "replace colour"]
    for row in rows:
        value, low = (float(row["misses + contradicts"].split()[n].strip("(")) for n in (0, 1))
        assert value > 0.65
        assert low > 0.5
        assert float(row["low CLIP score"].split()[0]) > 0.95
        assert value < float(row["latents and CLIP score"].split()[0])
        assert row["captions"] > 10


def test_lists_name_duplicates_and_wrong_pairs() -> None:
    clip = cliplens.load("world", device="cpu")
    pairs = cliplens.read_pairs("world:60:2")
    images = torch.stack([clip.preprocess(pairs[i].image) for i in range(60)])  # type: ignore[misc]
    images[7] = images[3]
    captions = [str(pairs[i].caption) for i in range(60)]
    captions[20], captions[40] = captions[40], captions[20]
    seen = see(clip, factor_dictionary(), pairs.ids, captions, images)
    found = lists(seen, [f"latent {k}" for k in range(24)])
    twins = [x.id for x in found if x.list == "near-duplicates"]
    assert pairs.ids[3] in twins
    wrong = [x.id for x in found if x.list == "perhaps mislabelled"][:4]
    assert {pairs.ids[20], pairs.ids[40]} & set(wrong)
    misfits = [x for x in found if x.list == "caption does not fit the image"]
    assert {pairs.ids[20], pairs.ids[40]} <= {x.id for x in misfits[:6]}
    assert all("CLIP score 0." in x.evidence or "CLIP score 1." in x.evidence for x in misfits)


def test_the_page_shows_any_caption_as_text(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script> \" ' & =HYPERLINK(1)"
    listed = [Listed("caption misses what the image shows", 1, hostile, hostile, 1.5, hostile)]
    study = Study("advice", "Advice", [hostile], {"Decision per concept": [{"concept": hostile, "x": 0.5, "y": None}]})
    save_page(tmp_path / "advice.html", study, listed, {hostile: Image.new("RGB", (300, 10))})
    page = (tmp_path / "advice.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "data:image/png;base64," in page
    assert "sha256-" in page


@pytest.mark.slow
def test_the_command_writes_page_record_and_report(tmp_path: Path) -> None:
    run: OpenedRun = study_run(tmp_path, "world:60")
    done = CliRunner().invoke(app, [str(run.folder.path), "--pairs", "40", "--concepts", "3", "--target", "world:30:9"])
    assert done.exit_code == 0, repr(done.exception)
    (study,) = read_studies(run.folder)
    assert study.name == "advice"
    assert {row["dictionary"] for row in study.tables["Known answer: AUROC of finding spoiled captions"]} == {
        "of the run",
        "never trained",
    }
    assert (run.folder.path / "advice.html").read_text().startswith("<!doctype html>")
    assert 'id="study-advice"' in run.folder.report.read_text()
