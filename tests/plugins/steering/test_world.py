"""`cliplens steer` on a finished run of the embedded world: real model, real dictionary, real generator."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens import edits as ed
from cliplens.exemplars import save_exemplars
from cliplens.records import Edit, LatentTable, PairedActs
from cliplens.run import run
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.tally import TopSamples
from cliplens.world import FACTORS, ground_truth
from cliplens_plugins import steering as s
from cliplens_plugins.generators import WorldGenerator, load_factor_reader
from cliplens_plugins.modality import classify_fixed, mds
from cliplens_plugins.steering.command import app
from cliplens_plugins.steering.sources import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, trained; of its scores only what steering reads: classes and top samples."""
    asked = Settings(
        model="world", pairs="world:1000", held_out=0.3, d_sae=96, k=8, samples=50_000, batch_size=256, device="cpu"
    )
    made = run(asked, tmp_path_factory.mktemp("world") / "run", until="train")
    opened = Run(made)
    pairs = opened.held_out(300)
    image, text = (opened.embed(column) for column in ([p.image for p in pairs], [p.caption for p in pairs]))  # type: ignore[arg-type]
    batch = opened.dictionary.batch(PairedActs(tuple(p.id for p in pairs), image, text))
    scores = mds(*(batch.codes.of(m).dense() for m in ("image", "text")))  # type: ignore[union-attr, arg-type]
    LatentTable({"modality": np.asarray(classify_fixed(scores), dtype=object)}).save(made.latents)
    tops = [TopSamples(modality, top=10) for modality in ("image", "text")]
    for top in tops:
        top.update(batch)
    by_id = {pair.id: pair for pair in pairs}
    save_exemplars(made.exemplars, *(top.exemplars(by_id) for top in tops))
    return made.path


def steer(*arguments: str) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def test_a_run_alone_is_enough(folder: Path) -> None:
    steer(str(folder), "--pairs", "2", "--dose", "0,1,2")
    found = json.loads((RunFolder(folder).steering / "steering.json").read_text())
    factor, _, value = found["aim"].partition("=")
    assert value in FACTORS[factor].values
    truth = ground_truth(found["samples"])
    assert all(truth.values[factor][v] != value for v in truth.factors[factor]), (
        "what it starts from is not the target yet"
    )
    assert (RunFolder(folder).steering / "strip.png").stat().st_size > 1000


def test_a_reference_picture_swaps_a_class_of_latents(folder: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    Run(RunFolder.open(folder)).held_out(1)[0].image.save(reference)  # type: ignore[union-attr]
    options = ["--edit", "class:CrossD~1", "--reference", str(reference), "--prompt", "a happy photo of two red stars"]
    steer(str(folder), *options, "--dose", "0,1", "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert found["edits"][0]["operation"] == "swap"
    assert found["edits"][0]["strength"] == 1.0


def test_what_it_did_is_read_off_the_pictures(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_factor_reader(tmp_path / "judge.safetensors", steps=40)  # reads badly, which is no matter here
    monkeypatch.setenv("CLIPLENS_JUDGE", str(tmp_path / "judge.safetensors"))
    options = ["--edit", "class:CrossD=*2", "--pairs", "3", "--dose", "1", "--out", str(tmp_path / "out")]
    steer(str(folder), *options, "--measure", "colour=blue")
    rows = json.loads((tmp_path / "out" / "steering.json").read_text())["measured"]
    assert [row["dose"] for row in rows] == [0.0, 1.0]
    assert all(0 <= row["size changed"] <= 1 for row in rows)
    assert rows[0]["size changed"] == 0
    steer(str(folder), *options, "--measure", "a blue star", "--judge", "open_clip:world")
    rows = json.loads((tmp_path / "out" / "steering.json").read_text())["measured"]
    assert all(-1 <= row["cosine with 'a blue star'"] <= 1 for row in rows)
    with pytest.warns(DeprecationWarning, match="--judge open_clip:world"):
        steer(str(folder), *options, "--measure", "a blue star", "--judge", "world")
    assert json.loads((tmp_path / "out" / "steering.json").read_text())["measured"] == rows
    for measure, words in (("colour=bleu", "'blue'"), ("hue=blue", "attribute"), ("blue", "attribute=value")):
        refused = CliRunner().invoke(app, [str(folder), *options, "--measure", measure])
        assert words in str(refused.exception)


def test_dose_0_draws_the_very_picture_and_an_edit_another(folder: Path) -> None:
    opened = Run(RunFolder.open(folder))
    pictures = [pair.image for pair in opened.held_out(2)]
    steering = ed.LatentSteering(opened.dictionary, [ed.add(s.by_class(opened.table, "CrossD")[:1], 3.0)])  # type: ignore[arg-type]
    plain, still, moved = (
        [np.asarray(p) for p in WorldGenerator().generate(opened.embed(pictures, way), seed=1)]  # type: ignore[arg-type]
        for way in (None, steering.at_dose(0.0), steering)
    )
    assert all(np.array_equal(a, b) for a, b in zip(plain, still, strict=True))
    assert all(np.abs(a.astype(int) - b).max() > 20 for a, b in zip(plain, moved, strict=True))


@torch.no_grad()
def test_steering_a_colour_flips_zero_shot_and_keeps_the_rest(folder: Path) -> None:
    """Latents of a colour are found by label on one half of held-out pairs and steer the other half."""
    opened = Run(RunFolder.open(folder))
    pairs = opened.held_out(300)
    acts = opened.embed([pair.image for pair in pairs])  # type: ignore[misc]
    values = ground_truth([pair.id for pair in pairs]).factors
    half = len(pairs) // 2
    codes = opened.dictionary.encode(PairedActs(tuple(p.id for p in pairs[:half]), acts[:half], None)).image
    assert codes is not None
    colours = values["colour"][:half]
    dense, means = codes.dense(), []
    for value in range(8):
        means.append(dense[torch.from_numpy(colours == value)].mean(0))
    best = [s.label_correlation(codes, colours == v) for v in range(8)]
    part = np.flatnonzero(np.nan_to_num(np.abs(best)).max(0) >= 0.2)
    shift: list[Edit] = [ed.add([int(k)], float(means[4][k] - means[0][k])) for k in part]
    red = torch.from_numpy(values["colour"][half:] == 0)
    moved = ed.LatentSteering(opened.dictionary, shift, dose=1.5).rows(acts[half:][red], "image")
    nearest = torch.stack([acts[:half][torch.from_numpy(colours == v)].mean(0) for v in range(8)])
    reading = s.zero_shot(moved, {"colour": nearest})["colour"]
    assert np.mean(reading == 4) > 0.8, "red pictures read as blue ones"
