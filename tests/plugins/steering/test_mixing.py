"""Control by modality class: a prompt mixed with a reference picture, on tiny real pipelines, from the command line."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cliplens
from cliplens import edits as ed
from cliplens.errors import InputError, MismatchError
from cliplens.runfolder import RunFolder
from cliplens_plugins.steering.command import app
from cliplens_plugins.steering.given import picture_at, reference_of
from cliplens_plugins.steering.mixing import RANDOM, REFERENCE, Mixed, grids, mixed_latents, scored
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run
from cliplens_plugins.steering.through_projection import Projection, ThroughProjection
from support import tiny_pipelines as tiny
from support.tiny_dictionaries import tiny_dictionary

DiffusionPipeline = pytest.importorskip(
    "diffusers", reason="steering pipelines needs the extra [diffusion]"
).DiffusionPipeline
JUDGE = "open_clip:world"
PAGE = Path(__file__).parents[3] / "docs" / "control-by-class.md"
FIGURES = ("cosine with the prompt", REFERENCE)


def steer(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def mixed(place: Path, out: Path, *more: str, pipeline: str) -> Any:
    where = [str(place / "run"), "--pipeline", str(place / pipeline), "--mix", "--out", str(out)]
    return steer(*where, "--reference", str(place / "other.png"), "--steps", "2", *more)


def commands_of_the_page() -> dict[str, list[str]]:
    """Return the steer command of each recipe, without the judge and the seeds of real weights."""
    text = PAGE.read_text(encoding="utf-8").split("\n## Recipes\n")[1].split("\n## ")[0]
    other = (PAGE.parent / "steering.md").read_text(encoding="utf-8").split("\n## A prompt and ")[1].split("\n## ")[0]
    found = {}
    for part in [*text.split("\n### ")[1:], other]:
        words = shlex.split(next(line for line in part.splitlines() if line.startswith("cliplens steer")))[2:]
        found[part.partition("\n")[0]] = _without(words, "--judge", "--seeds", "--out")
    return found


def _without(words: list[str], *options: str) -> list[str]:
    kept = words
    for option in options:
        at = kept.index(option)
        kept = kept[:at] + kept[at + 2 :]
    return kept


RECIPES = commands_of_the_page()
RECIPES["StableUnCLIP from a picture"] = [
    {"unclip": "unclip-img2img", "--prompt": "--image", "a red ring": "own.png"}.get(w, w)
    for w in RECIPES["StableUnCLIP"]
]


def test_the_page_has_the_recipes() -> None:
    assert set(RECIPES) >= {"StableUnCLIP", "IP-Adapter", "Stable Diffusion 1.5", "reference pictures"}


@pytest.mark.parametrize("name", RECIPES)
def test_classes_and_alphas_through_a_pipeline(
    name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    small = ["--seeds", "0,1", "--judge", JUDGE, "--dose", "0,1", "--steps", "2", "--size", "32x32"]
    done = steer(*RECIPES[name], *small, "--out", str(tmp_path))
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    found = json.loads((tmp_path / "steering.json").read_text())
    rows = {(row["class"], row["alpha"]): row for row in found["mixed"]}
    classes = list(dict.fromkeys(name for name, _ in rows))
    assert classes[-1] == "all"
    assert {f"{RANDOM}{c}" for c in classes if c in ("ImgD", "TextD", "CrossD")} <= set(classes)
    own = "cosine with the picture" if "from a picture" in name else "cosine with the prompt"
    at_zero = {(row[own], row[REFERENCE]) for (_, alpha), row in rows.items() if alpha == 0}
    assert len(at_zero) == 1, "at alpha 0 nothing is mixed in, whatever the class"
    assert rows["all", 1.0][f"change of the {REFERENCE}"] != 0
    assert " to " in rows["all", 1.0][f"{REFERENCE} 95 %"]
    assert found["compared"][-1]["edit"] == "all"
    assert found["compared"][-1]["measured"][-1]["conditioning moved"] > 0
    page = (tmp_path / "steering.html").read_text()
    title = REFERENCE.capitalize()
    assert title in page
    assert title in done.output
    samples = RECIPES[name].count("--reference")
    pictures = samples * (2 * 2 * len(classes) + 1)
    assert page.count("data:image/png") == pictures, "seeds, alphas, classes, and the reference"
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.height > len(classes) * 96, "a row for each class"
    assert not (tmp_path / "edits.json").exists()


def test_without_a_judge_it_draws_and_says_what_is_missing(place: Path, tmp_path: Path) -> None:
    done = mixed(place, tmp_path, "--prompt", "a red x", "--size", "32x32", pipeline="sd15")
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    found = json.loads((tmp_path / "steering.json").read_text())
    assert found["doses"] == [0.0, 0.5, 1.0]
    assert {row["picture moved"] for row in found["mixed"] if row["alpha"] == 0} == {0.0}
    assert "--judge" in found["notes"][-1]


def test_the_judge_of_the_same_model_is_called_circular(place: Path, tmp_path: Path) -> None:
    judge = f"open_clip:hf:{place / 'clip'}"
    options = ["--prompt", "a red x", "--size", "32x32", "--dose", "0,1", "--judge", judge]
    done = mixed(place, tmp_path, *options, pipeline="sd15")
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    assert "circular" in done.output


def test_another_text_encoder_than_that_of_the_run_is_refused(place: Path, tmp_path: Path) -> None:
    refused = mixed(place, tmp_path / "out", "--prompt", "a red x", pipeline="another")
    assert isinstance(refused.exception, MismatchError)
    assert "whose text encoder is that of the run's model" in str(refused.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--edit", "3=+6"], "--edit beside it"),
        (["--control"], "--control beside it"),
        (["--generator", "none"], "something that draws pictures"),
    ],
)
def test_what_does_not_go_with_a_mix_is_refused(place: Path, tmp_path: Path, more: list[str], words: str) -> None:
    pipeline = ["--prompt", "a", *([] if "--generator" in more else ["--pipeline", str(place / "sd15")])]
    given = [str(place / "run"), *pipeline, "--mix", "--reference", "a red x", "--out", str(tmp_path / "out"), *more]
    refused = steer(*given)
    assert isinstance(refused.exception, InputError)
    assert words in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_a_reference_is_a_picture_or_a_caption_never_a_missing_file(tmp_path: Path) -> None:
    """A misspelt file name must not become a caption, nor a broken or transparent picture another one."""
    with pytest.raises(InputError, match=r"no file .*otehr.PNG"):
        SteeringRequest(out=tmp_path, run=tmp_path, mix=True, prompts=("a",), reference=(str(tmp_path / "otehr.PNG"),))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken.png: unreadable image"):
        reference_of(str(tmp_path / "broken.png"))
    with pytest.raises(InputError, match="missing file"):
        picture_at(tmp_path / "gone.jpg")
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    seen = reference_of(str(tmp_path / "clear.png"))
    assert isinstance(seen, Image.Image)
    assert seen.getpixel((0, 0)) == (255, 255, 255), "as in the pairs of a run"
    assert picture_at(tmp_path / "clear.png", mask=True).getpixel((0, 0)) == (0, 0, 0)
    (tmp_path / "folder").mkdir()
    for caption in ("a red x", str(tmp_path / "folder"), "long " * 100, "Mr. Smith"):
        assert reference_of(caption) == caption


def test_a_mix_needs_a_prompt(place: Path, tmp_path: Path) -> None:
    refused = steer(str(place / "run"), "--mix", "--reference", "a red x", "--out", str(tmp_path / "out"))
    assert isinstance(refused.exception, InputError)
    assert "to mix the reference into" in str(refused.exception)


def test_a_mix_needs_a_run_and_a_reference(place: Path, tmp_path: Path) -> None:
    for given in (
        [str(place / "run"), "--pipeline", str(place / "sd15")],
        ["--pipeline", str(place / "sd15"), "--sae", str(place / "run" / "sae"), "--edit", "3=+1", "--reference", "a"],
    ):
        refused = steer(*given, "--mix", "--prompt", "a", "--out", str(tmp_path / "out"))
        assert isinstance(refused.exception, InputError)
        assert "--mix is given" in str(refused.exception)


@torch.no_grad()
def test_through_the_projection_the_new_embedding_is_the_edited_one(place: Path) -> None:
    """x + (e' - e) W^+ projects to e', in float64; EOT and the padding move by one vector, the words do not."""
    run = Run(RunFolder.open(place / "run"))
    found = Projection.of(run.clip.text)
    weight, bias = found.weight, found.bias
    states = torch.randn(3, 7, len(weight), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([2, 4, 6])
    dictionary = tiny_dictionary(tiny.EMBED, 64, sites=("text.hook_embedding",))
    steering = ed.LatentSteering(dictionary, [ed.add([20], 3.0)])
    through = ThroughProjection(steering, Projection(weight.double(), bias.double()), unit=True)
    new = through(states, "text", ends)
    before = states[torch.arange(3), ends] @ weight.double() + bias.double()
    after = new[torch.arange(3), ends] @ weight.double() + bias.double()
    length = before.norm(dim=-1, keepdim=True)
    expected = length * (before / length + 3.0 * dictionary.decoder[20].double())
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6)
    for row, end in enumerate(ends.tolist()):
        assert torch.equal(new[row, :end], states[row, :end])
        moved = new[row, end:] - states[row, end:]
        torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    assert through.at_dose(0.0).idle


def test_a_projection_that_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(InputError, match="that can be inverted"):
        Projection(torch.zeros(tiny.WIDTH, tiny.EMBED), torch.zeros(tiny.EMBED))


def test_any_edit_of_an_embedding_run_steers_stable_diffusion_1(place: Path, tmp_path: Path) -> None:
    """Without --mix too: the default run is on embeddings, which Stable Diffusion 1 does not have."""
    where = [str(place / "run"), "--pipeline", str(place / "sd15"), "--prompt", "a red x", "--out", str(tmp_path)]
    done = steer(*where, "--edit", "3=+1", "--control", "--steps", "1", "--dose", "0,1", "--size", "32x32")
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    assert json.loads((tmp_path / "steering.json").read_text())["measured"][1]["conditioning moved"] > 0


@torch.no_grad()
def test_words_steer_stable_diffusion_1_in_python(place: Path) -> None:
    pipeline = tiny.quiet(DiffusionPipeline.from_pretrained(place / "sd15"))
    with cliplens.steer(pipeline, place / "run", "3=+1") as movement:
        tiny.picture(pipeline, "a red x", height=32, width=32)
    assert movement.conditioning > 0


@torch.no_grad()
def test_all_latents_at_alpha_1_give_the_reference_without_the_error_term(place: Path) -> None:
    run = Run(RunFolder.open(place / "run"))
    codes = run.codes(Image.open(place / "other.png").convert("RGB"))
    everything = mixed_latents(["CrossD"] * run.dictionary.d_sae)["all"]
    steering = ed.LatentSteering(run.dictionary, [ed.swap(everything, 1.0)], use_error_term=False, reference=codes)
    start = run.embed(["a red x"])
    expected = run.dictionary.folded("text").decode(codes)
    torch.testing.assert_close(steering.rows(start, "text"), expected.to(start), rtol=1e-5, atol=1e-5)


def test_random_sets_are_as_large_as_their_class_and_the_same_for_a_seed() -> None:
    classes = ["ImgD"] * 5 + ["TextD"] * 3 + ["dead", None, "undecided"] + ["CrossD"] * 4
    found = mixed_latents(classes, seed=1)
    assert {name: len(latents) for name, latents in found.items()} == {
        "ImgD": 5,
        f"{RANDOM}ImgD": 5,
        "TextD": 3,
        f"{RANDOM}TextD": 3,
        "CrossD": 4,
        f"{RANDOM}CrossD": 4,
        "all": 12,
    }
    assert found == mixed_latents(classes, seed=1)
    assert not set(found["all"]) & {8, 9, 10}, "latents without a class are never mixed in"


def test_scores_are_paired_by_prompt() -> None:
    """Against the formula: means over seeds first, then differences to alpha 0 and to the random set."""
    from cliplens import registry

    words = ["a red ring", "a blue star"]
    draw = {
        name: [[tiny.tiny_image(10 * n + 100 * a + j, 48) for j in range(4)] for a in range(2)]
        for n, name in enumerate(("ImgD", f"{RANDOM}ImgD"))
    }
    draw[f"{RANDOM}ImgD"][0] = draw["ImgD"][0]
    reference = tiny.tiny_image(7, 48)
    given = {name: Mixed(3, columns) for name, columns in draw.items()}
    rows = scored(JUDGE, given, (0.0, 1.0), {"prompt": words, "reference": [reference]})
    eye = registry.judge(JUDGE)
    text, end = eye.embed(None, words, words).text, eye.embed([reference], None, ["0"]).image[0]

    def cosines(pictures: list[Image.Image]) -> dict[str, np.ndarray]:
        images = eye.embed(pictures, None, list("abcd")).image
        with_prompt = np.array([float(images[n] @ text[n % 2]) for n in range(4)])
        return dict(zip(FIGURES, (with_prompt, (images @ end).numpy()), strict=True))

    def units(values: np.ndarray) -> np.ndarray:
        return np.array([values[[0, 2]].mean(), values[[1, 3]].mean()])

    row = next(r for r in rows if r["class"] == "ImgD" and r["alpha"] == 1)
    zero, one, other = (cosines(p) for p in (draw["ImgD"][0], draw["ImgD"][1], draw[f"{RANDOM}ImgD"][1]))
    for figure in FIGURES:
        assert row[figure] == pytest.approx(units(one[figure]).mean(), abs=1e-5)
        change = units(one[figure]) - units(zero[figure])
        assert row[f"change of the {figure}"] == pytest.approx(change.mean(), abs=1e-5)
        beyond = change - (units(other[figure]) - units(zero[figure]))
        assert row[f"beyond random: {figure}"] == pytest.approx(beyond.mean(), abs=1e-5)
    titles = [title for title, _, _ in grids(rows)]
    assert len(titles) == 6
    assert f"beyond random: {REFERENCE}" not in next(r for r in rows if r["class"].startswith(RANDOM))
