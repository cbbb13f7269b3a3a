"""`cliplens steer` on a finished run of the embedded world: real model, real dictionary, real generator."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cliplens
from cliplens import edits as ed
from cliplens.errors import InputError, UnknownNameError
from cliplens.exemplars import save_exemplars
from cliplens.pairs import Pairs
from cliplens.records import LatentTable, PairedActs
from cliplens.run import run
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.tally import TopSamples
from cliplens.world import FACTORS, ground_truth
from cliplens_plugins import steering as s
from cliplens_plugins.generators import WorldGenerator
from cliplens_plugins.modality import classify_fixed, mds
from cliplens_plugins.steering import targets
from cliplens_plugins.steering.command import app
from cliplens_plugins.steering.find_command import ORDER
from cliplens_plugins.steering.find_command import app as find_app
from cliplens_plugins.steering.parsing import parse_edits
from cliplens_plugins.steering.request import SteeringRequest
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
    image, text = (opened.embed(column) for column in ([p.image for p in pairs], [p.caption for p in pairs]))
    batch = opened.dictionary.batch(PairedActs(tuple(p.id for p in pairs), image, text))
    scores = mds(*(batch.codes.of(m).dense() for m in ("image", "text")))  # type: ignore[union-attr, arg-type]
    LatentTable({"modality": np.asarray(classify_fixed(scores), dtype=object)}).save(made.latents)
    tops = [TopSamples(modality, top=10) for modality in ("image", "text")]
    for top in tops:
        top.update(batch)
    by_id = {pair.id: pair for pair in pairs}
    save_exemplars(made.exemplars, *(top.exemplars(by_id) for top in tops))
    return made.path


@pytest.fixture(scope="module")
def opened(folder: Path) -> Run:
    """The run opened once: what it reads of its pairs is kept."""
    return Run(RunFolder.open(folder))


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Success is measured on fewer pictures than by default; what is proved here does not depend on their number."""
    monkeypatch.setattr(targets, "MEASURED", 8)
    monkeypatch.setattr(targets, "MEASURED_UNASKED", 4)


def steer(*arguments: str) -> Any:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def test_words_find_the_latents_whose_codes_go_with_them(opened: Run) -> None:
    found = opened.find("red", 5)
    assert found[0].good
    assert found[0].evidence >= found[0].score > 0
    assert [c.good for c in found] == sorted((c.good for c in found), reverse=True)
    means = opened.mean_codes("red")
    assert means is not None
    assert means[found[0].latent] == pytest.approx(found[0].level)
    for words in ("unnamed", "  ", "Unnamed"):
        with pytest.raises(InputError, match="words to find latents for"):
            opened.find(words)
    with pytest.raises(UnknownNameError, match="sesquipedalian"):
        opened.find("sesquipedalian")


def test_cliplens_find_prints_them(folder: Path, opened: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(find_app, [str(folder), "red", "--count", "3", "--pictures", str(tmp_path / "red.png")])
    assert done.exit_code == 0, done.output
    best = opened.find("red", 1)[0]
    assert re.search(rf"^\s*{best.latent}\b", done.output, re.MULTILINE)
    assert ORDER in done.output
    shown = opened.find("red", 99)
    assert shown == sorted(shown, key=lambda c: (not c.good, -c.score)), "the order that is said"
    with Image.open(tmp_path / "red.png") as sheet:
        assert sheet.width > 6 * 96
    pictures = opened.top_pictures(best.latent, 4, modality="image")
    assert len(pictures) == len(opened.captions_of(best.latent, 4, modality="image")) == 4


def test_words_in_edits_take_all_good_candidates_and_the_screen_says_which(folder: Path, tmp_path: Path) -> None:
    done = steer(
        str(folder), "--edit", "red->blue=+1x", "--prompt", "a red star", "--dose", "1", "--out", str(tmp_path)
    )
    found = json.loads((tmp_path / "steering.json").read_text())
    taken = {k for e in found["edits"] for k in e["latents"]}
    assert taken == {entry["latent"] for group in found["latents"].values() for entry in group}
    assert all(re.search(rf"(?<![\d.]){k}(?![\d.])", done.output) for k in taken)
    assert found["measured"][1]["embedding moved"] > 0


def test_red_pictures_turn_blue_by_the_distance_to_the_palette(opened: Run) -> None:
    """Success is read off the pixels: the figure's colour is nearer to blue's than to red's. No reader is involved."""
    edits = parse_edits("red->blue=+1x", lambda words: opened.group(words, "image"))
    red = [p for p in opened.held_out(300) if ground_truth([p.id]).factors["colour"][0] == 0][:16]
    rows = opened.embed([pair.image for pair in red])  # type: ignore[arg-type]
    steering = ed.LatentSteering(opened.dictionary, edits)
    pictures = WorldGenerator().generate(steering.at_dose(1.5).rows(rows, "image"), seed=0)
    best = float(np.mean([blue_over_red(p) for p in pictures]))
    plain = WorldGenerator().generate(rows, seed=0)
    assert np.mean([blue_over_red(p) for p in plain]) < 0.2
    assert best >= 0.8


def blue_over_red(picture: Any) -> bool:
    pixels = np.asarray(picture.convert("RGB"), float).reshape(-1, 3)
    far = np.abs(pixels - np.median(pixels, 0)).sum(1)
    figure = pixels[far >= np.quantile(far, 0.95)].mean(0)
    return bool(figure[2] > figure[0])


@torch.no_grad()
def test_steering_by_words_at_top_level(folder: Path, opened: Run) -> None:
    images = torch.stack([opened.clip.preprocess(p.image) for p in opened.held_out(3)])  # type: ignore[misc, arg-type]
    before = opened.clip.encode_image(images)
    with cliplens.steer(opened.clip, folder, "red->blue", dose=2.0) as movement:
        after = opened.clip.encode_image(images)
    assert movement.activations > 0
    assert not torch.allclose(before, after)
    assert torch.equal(opened.clip.encode_image(images), before)


def test_finding_reads_the_captions_it_needs_and_no_others(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding all captions for each of 4,096 pairs took minutes on runs of the demo's size."""
    monkeypatch.setattr(Pairs, "captions", property(lambda _: pytest.fail("all captions were read")))
    fresh = Run(opened.folder)
    assert fresh.find("red", 1)[0].latent == opened.find("red", 1)[0].latent


def test_a_short_prompt_is_drawn_as_a_whole_caption(folder: Path, tmp_path: Path) -> None:
    done = steer(
        str(folder), "--edit", "red->blue=+1x", "--prompt", "a red ring", "--dose", "1", "--out", str(tmp_path)
    )
    found = json.loads((tmp_path / "steering.json").read_text())
    assert found["samples"] == ["a red ring"]
    assert "'a red ring' is drawn as" in done.output


def test_a_run_without_a_generator_steers_clip_itself(folder: Path, tmp_path: Path) -> None:
    options = [
        "--edit",
        "red->blue",
        "--classes",
        "red, blue",
        "--pairs",
        "60",
        "--dose",
        "0,1",
    ]
    steer(str(folder), *options, "--out", str(tmp_path))
    found = json.loads((tmp_path / "steering.json").read_text())
    plain, steered = found["measured"]
    assert len(found["samples"]) == 60
    assert plain["image moved"] == plain["caption moved"] == plain["class changed"] == 0
    assert steered["image moved"] > 0
    assert 0 <= steered["image_to_text_r1"] <= 1
    assert steered["seen as blue"] > plain["seen as blue"]


def test_quarantined_pairs_are_passed_over(folder: Path, opened: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    first = [pair.id for pair in opened.held_out(3)]
    line = json.dumps({"id": first[0], "reason": "cut short"})
    (copy / "quarantine.jsonl").write_text(line + "\n")
    assert [pair.id for pair in Run(RunFolder.open(copy)).held_out(2)] == first[1:]


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
    page = (RunFolder(folder).steering / "steering.html").read_text()
    assert page.count("data:image/png") == 2 * 3, "two samples at three doses"
    assert found["aim"] in page


def test_most_limits_the_latents_of_a_word(folder: Path, opened: Run, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, [str(folder), "--edit", "red=off", "--most", "1", "--pairs", "1", "--dose", "1", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    good = len(opened.group("red", "image").latents)
    assert good > 1
    assert f"red (1 edited of {good} good ones; --most sets how many)" in done.output
    (edit,) = json.loads((tmp_path / "edits.json").read_text())["edits"]
    assert edit["latents"] == list(opened.group("red", "image").latents[:1])
    with cliplens.steer(opened.clip, folder, "red=off", most=1):
        pass


@pytest.mark.parametrize("more", [[], ["--control"], ["--classes", "red,blue", "--control"]])
def test_clip_itself_says_how_the_edit_compares_with_a_random_one(
    folder: Path, tmp_path: Path, more: list[str]
) -> None:
    options = ["--generator", "none", "--edit", "red->blue", "--pairs", "8", "--dose", "1", "--out", str(tmp_path)]
    steer(str(folder), *options, *more)
    said = json.loads((tmp_path / "steering.json").read_text())["verdict"]
    if not more:
        assert "--control" in said
        assert "--classes" in said
    else:
        assert said.startswith("'seen as blue' changes" if "--classes" in more else "'image moved' changes")
    assert said in (tmp_path / "steering.html").read_text().replace("&#39;", "'")


def test_a_phrase_is_refused_where_no_picture_is_drawn(folder: Path, tmp_path: Path) -> None:
    options = ["--generator", "none", "--edit", "red=off", "--measure", "a blue ring", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [str(folder), *options])
    assert "draws pictures, since --measure is given, but found CLIP itself" in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_a_reference_picture_swaps_a_class_of_latents(folder: Path, opened: Run, tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    opened.held_out(1)[0].image.save(reference)  # type: ignore[union-attr]
    options = ["--edit", "class:CrossD~1", "--reference", str(reference), "--prompt", "a happy photo of two red stars"]
    steer(str(folder), *options, "--dose", "0,1", "--out", str(tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert found["edits"][0]["operation"] == "swap"
    assert found["edits"][0]["strength"] == 1.0


@pytest.mark.parametrize("kind", ["prompts", "images"])
def test_a_sample_is_drawn_again_alone_with_the_seed_of_its_label(
    folder: Path, opened: Run, tmp_path: Path, kind: str
) -> None:
    given: dict[str, tuple[Any, ...]] = {"prompts": ("a red ring", "a blue star"), "images": ()}
    for n, pair in enumerate(opened.held_out(2)):
        pair.image.save(tmp_path / f"{n}.png")  # type: ignore[union-attr]
        given["images"] += (tmp_path / f"{n}.png",)
    steering = ed.LatentSteering(opened.dictionary, [ed.add([3], 1.0)])

    def drawn(seeds: tuple[int, ...], samples: tuple[Any, ...]) -> dict[str, np.ndarray]:
        asked: dict[str, Any] = {"run": folder, "edit": ("3=+1",), "doses": (0.0, 1.0), kind: samples, "seeds": seeds}
        request = SteeringRequest(out=tmp_path / "out", **asked)
        found = targets.GeneratorTarget(request, opened, "world", None).over_doses(steering)
        pictures = [np.stack([np.asarray(p, dtype=int) for p in column]) for column in found.columns]
        return dict(zip(found.labels, np.stack(pictures, axis=1), strict=True))

    both = drawn((3, 4), given[kind])
    ((label, alone),) = drawn((4,), given[kind][1:]).items()
    assert np.abs(alone - both[f"{label}, seed 4"]).max() <= 1
    assert np.abs(alone - both[f"{label}, seed 3"]).max() > 20


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--image", "0.png"], "1 --prompt and 1 --image. Fix: leave out one of them"),
        (["--image", "0.png", "--image", "1.png"], "1 --prompt and 2 --image"),
        (
            ["--prompt", "a red star", *(w for n in ("red", "blue", "green") for w in ("--reference", f"a {n} star"))],
            "2 --prompt, 3",
        ),
        (["--reference", "zzz yyy"], "words of the embedded world, but found 'zzz'"),
    ],
)
def test_a_mix_on_the_world_refuses_what_it_would_not_draw(
    folder: Path, opened: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for n, pair in enumerate(opened.held_out(2)):
        pair.image.save(f"{n}.png")  # type: ignore[union-attr]
    references = [] if "--reference" in more else ["--reference", "a blue star"]
    refused = CliRunner().invoke(
        app, [str(folder), "--mix", "--prompt", "a red ring", *references, *more, "--out", str(tmp_path / "out")]
    )
    assert isinstance(refused.exception, InputError), repr(refused.exception)
    assert says in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_references_of_the_world_are_written_out_and_each_is_a_sample(folder: Path, tmp_path: Path) -> None:
    given = ["--prompt", "a red ring", "--reference", "a blue star", "--reference", "a green square"]
    done = steer(str(folder), "--mix", *given, "--dose", "1", "--seeds", "0,1", "--out", str(tmp_path))
    found = json.loads((tmp_path / "steering.json").read_text())
    labels = ("a red ring, a blue star", "a red ring, a green square")
    assert found["samples"] == [f"{label}, seed {seed}" for seed in (0, 1) for label in labels]
    assert "'a blue star' is mixed in as" in done.output
    assert done.output.count("'a red ring' is drawn as") == 1


def test_what_it_did_is_read_off_the_pictures(folder: Path, tmp_path: Path) -> None:
    options = ["--edit", "class:CrossD=*2", "--pairs", "3", "--dose", "1", "--out", str(tmp_path / "out")]
    steer(str(folder), *options, "--measure", "colour=blue")
    rows = json.loads((tmp_path / "out" / "steering.json").read_text())["measured"]
    assert [row["dose"] for row in rows] == [0.0, 1.0]
    assert all(0 <= row["size changed"] <= 1 for row in rows)
    assert rows[0]["size changed"] == 0
    assert rows[1]["size changed 95 %"].count("-") == 1
    steer(str(folder), *options, "--measure", "a blue star", "--judge", "open_clip:world")
    rows = json.loads((tmp_path / "out" / "steering.json").read_text())["measured"]
    assert all(-1 <= row["cosine with 'a blue star'"] <= 1 for row in rows)
    with pytest.warns(DeprecationWarning, match="--judge open_clip:world"):
        steer(str(folder), *options, "--measure", "a blue star", "--judge", "world")
    assert json.loads((tmp_path / "out" / "steering.json").read_text())["measured"] == rows
    for measure, words in (("colour=bleu", "'blue'"), ("hue=blue", "attribute"), ("blue", "attribute=value")):
        refused = CliRunner().invoke(app, [str(folder), *options, "--measure", measure])
        assert words in str(refused.exception)


def test_dose_0_draws_the_very_picture_and_an_edit_another(opened: Run) -> None:
    pictures = [pair.image for pair in opened.held_out(2)]
    steering = ed.LatentSteering(opened.dictionary, [ed.add(s.by_class(opened.table, "CrossD")[:1], 3.0)])
    plain, still, moved = (
        [np.asarray(p) for p in WorldGenerator().generate(opened.embed(pictures, way), seed=1)]  # type: ignore[arg-type]
        for way in (None, steering.at_dose(0.0), steering)
    )
    assert all(np.array_equal(a, b) for a, b in zip(plain, still, strict=True))
    assert all(np.abs(a.astype(int) - b).max() > 20 for a, b in zip(plain, moved, strict=True))


@torch.no_grad()
def test_steering_a_colour_flips_zero_shot_and_keeps_the_rest(opened: Run) -> None:
    """Latents of a colour are found by label on one half of held-out pairs and steer the other half."""
    pairs = opened.held_out(300)
    acts = opened.embed([pair.image for pair in pairs])  # type: ignore[arg-type]
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
    shift: list[ed.Edit] = [ed.add([int(k)], float(means[4][k] - means[0][k])) for k in part]
    red = torch.from_numpy(values["colour"][half:] == 0)
    moved = ed.LatentSteering(opened.dictionary, shift, dose=1.5).rows(acts[half:][red], "image")
    nearest = torch.stack([acts[:half][torch.from_numpy(colours == v)].mean(0) for v in range(8)])
    reading = s.zero_shot(moved, {"colour": nearest})["colour"]
    assert np.mean(reading == 4) > 0.8, "red pictures read as blue ones"
