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
from cliplens_plugins.advice import Concept, clip_score, coverage, mention_rates, sae_v, score_pairs, strong
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
        value, low = (float(row["both"].split()[n].strip("(")) for n in (0, 1))
        assert value > 0.65
        assert low > 0.5
        assert float(row["low CLIP score"].split()[0]) > 0.95
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
