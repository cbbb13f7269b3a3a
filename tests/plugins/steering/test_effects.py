"""Scores of steering: known answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from cliplens import edits as ed
from cliplens.errors import InputError, UnknownNameError
from cliplens.records import LatentTable
from cliplens_plugins import steering as s
from cliplens_plugins.steering.effects import Effect, Share

BEFORE = {"colour": np.array([0, 0, 1, 2]), "size": np.array([0, 1, 0, 1])}
AFTER = {"colour": np.array([1, 1, 1, 0]), "size": np.array([0, 0, 1, 1])}


def test_only_samples_that_were_not_the_target_count() -> None:
    found = s.effect(BEFORE, AFTER, "colour", 1, dose=2.0)
    assert found.success.share == pytest.approx(2 / 3)
    assert found.success.n == 3
    assert found.changed["size"].share == pytest.approx(1 / 3), "the sample that was the target already is left out"
    assert found.worst == pytest.approx(1 / 3)


def test_a_target_per_sample() -> None:
    found = s.effect(BEFORE, AFTER, "colour", np.array([1, 2, 0, 0]), dose=1.0)
    assert found.success.share == pytest.approx(2 / 4)


def test_wilson_is_scipys() -> None:
    for hits, n in ((0, 7), (3, 10), (160, 200), (12, 12)):
        found = s.share_of(np.arange(n) < hits)
        exact = binomtest(hits, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert np.isnan(s.share_of(np.zeros(0, dtype=bool)).share)


def test_the_slope_is_least_squares_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(0)
    doses = [0.0, 1.0, 2.0, 4.0]
    hits = rng.random((4, 300)) < np.array([0.1, 0.3, 0.5, 0.9])[:, None]
    slope, low, high = s.dose_slope(doses, hits)
    assert slope == pytest.approx(np.polyfit(doses, hits.mean(1), 1)[0])
    assert low < 0.2 < high
    assert all(np.isnan(s.dose_slope([1.0], hits[:1])))


def effects(*worst: float) -> list[Effect]:
    return [
        Effect(float(d), Share(d / 4, 0.0, 1.0, 10), {"size": Share(w, 0.0, 1.0, 10), "fill": Share(0.0, 0.0, 1.0, 10)})
        for d, w in enumerate(worst)
    ]


def test_the_dose_at_which_side_effects_pass_a_threshold() -> None:
    assert s.dose_of_breach(effects(0.0, 0.05, 0.15)) == pytest.approx(1.5)
    assert s.dose_of_breach(effects(0.0, 0.02, 0.22)) == pytest.approx(1.4)
    assert s.dose_of_breach(effects(0.0, 0.05, 0.1)) == float("inf")
    assert s.dose_of_breach(effects(0.3, 0.05)) == 0.0
    best = s.best_within(effects(0.0, 0.05, 0.1, 0.2))
    assert best is not None
    assert best.dose == 2.0
    assert s.best_within(effects(0.5)) is None


def test_clip_itself_zero_shot_and_retrieval() -> None:
    bank = {"axis": torch.eye(3)}
    before = torch.tensor([[2.0, 0.1, 0.0], [0.0, 3.0, 0.1]])
    after = torch.tensor([[0.0, 0.1, 4.0], [0.0, 3.0, 0.1]])
    assert s.zero_shot(before, bank)["axis"].tolist() == [0, 1]
    assert s.zero_shot(after, bank)["axis"].tolist() == [2, 1]
    moved = s.cosine_shift(before, after, bank)["axis"]
    assert moved[2] > 0 > moved[0]
    assert s.retrieval(before, before) == {
        f"{w}_r{k}": 1.0 for w in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    assert s.retrieval(before, before.flip(0), at=(1,)) == {
        "image_to_text_r1": 0.0,
        "text_to_image_r1": 0.0,
    }


def test_proxies_of_quality_and_the_strip(tmp_path: Path) -> None:
    flat = Image.new("RGB", (48, 48), (120, 120, 120))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    assert s.sharpness(flat) == 0.0
    assert s.sharpness(noise) > 0.1
    assert s.burnt(Image.new("RGB", (4, 4), (255, 0, 255))) == 1.0
    s.save_strip(tmp_path / "strip.png", [[flat, noise, flat], [noise, flat, noise]], ["0", "1", "2"], ["a", "b"])
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (3 * 100 + 4, 16 + 2 * (96 + 16 + 4) + 4)


TABLE = LatentTable(
    {
        "name": np.array(["red", "blue", "ring", None], dtype=object),
        "modality": np.array(["CrossD", "CrossD", "ImgD", "dead"], dtype=object),
    }
)


def test_edits_as_people_write_them() -> None:
    def level(latent: int) -> float | None:
        return {0: 1.5, 1: 2.0}.get(latent)

    read = {
        "red=+4": ed.add([0], 4.0),
        "red=-0.5": ed.add([0], -0.5),
        "blue=+2x": ed.add([1], 4.0),
        "2=3": ed.set_to([2], 3.0),
        "1,2=off": ed.ablate([1, 2]),
        "red=*0.5": ed.scale([0], 0.5),
        "red->blue=+2x": ed.replace([0], [1], 4.0),
        "red->blue": ed.replace([0], [1], 2.0),
        " red ": ed.add([0], 1.5),
        "class:ImgD~0.7": ed.swap([2], 0.7),
        "class:all~1": ed.swap([0, 1, 2], 1.0),
    }
    for text, edit in read.items():
        assert s.parse_edit(text, TABLE, level) == edit
    assert len(s.parse_edit("class:random/2~1", TABLE).latents) == 2


def test_edits_nobody_can_read_are_refused_in_words() -> None:
    for text in ("", "red=", "red=+", "=+4", "red=+4y"):
        with pytest.raises(InputError, match=r"an edit such as red=\+4"):
            s.parse_edit(text, TABLE)
    with pytest.raises(UnknownNameError, match="'red'"):
        s.parse_edit("rde=+4", TABLE)
    with pytest.raises(InputError, match="latents given by number"):
        s.parse_edit("red=+4")
    with pytest.raises(InputError, match="a known typical level"):
        s.parse_edit("ring=+2x", TABLE, lambda _: None)
