"""Mixing with several prompts, pictures and references of one's own: the arithmetic, the samples, the refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens import edits as ed
from cliplens.errors import InputError, MismatchError
from cliplens.runfolder import RunFolder
from cliplens_plugins.steering import targets
from cliplens_plugins.steering.command import app
from cliplens_plugins.steering.given import picture_at
from cliplens_plugins.steering.mixing import RANDOM, REFERENCE, mixed_latents
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.samples import check_counts
from cliplens_plugins.steering.sources import Run

JUDGE = "open_clip:world"
SMALL = ["--steps", "1", "--size", "32x32"]


def mix(out: Path, *arguments: str, run: str = "run") -> Any:
    return CliRunner().invoke(app, [run, "--mix", *arguments, *SMALL, "--out", str(out)])


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the denoiser was given in each step."""
    seen: list[dict[str, Any]] = []
    stock = targets.open_pipeline

    def opened(request: Any) -> Any:
        pipeline = stock(request)
        pipeline.unet.register_forward_pre_hook(lambda *given: seen.append(given[2]), with_kwargs=True)
        return pipeline

    monkeypatch.setattr(targets, "open_pipeline", opened)
    return seen


@torch.no_grad()
def by_hand(run: Run, own: Any, reference: Any, latents: list[int], alpha: float) -> torch.Tensor:
    """z = z_own + alpha mask (z_reference - z_own), written out, with the reconstruction error kept."""
    modality = "text" if isinstance(own, str) else "image"
    folded = run.dictionary.folded(modality)
    start = run.embed([own])
    codes, goal = folded.encode(start), run.codes(reference)
    mask = torch.zeros(run.dictionary.d_sae)
    mask[latents] = 1.0
    mixed = codes + alpha * mask * (goal - codes)
    return (start + folded.decode(mixed) - folded.decode(codes))[0]


def directions(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def test_each_picture_is_mixed_with_its_own_reference(here: Path, tmp_path: Path, told: list[dict[str, Any]]) -> None:
    """An IP-Adapter, two pictures with a reference each: the denoiser gets the embedding that the formula says."""
    owns, references = ("own.png", "own2.png"), ("other.png", "the blue x")
    both = list(zip(owns, references, strict=True))
    given = [word for own, ref in both for word in ("--ip-image", own, "--reference", ref)]
    done = mix(tmp_path, "--pipeline", "sd15", "--ip-adapter", "ip-adapter.safetensors", *given, "--dose", "0,0.5")
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    found = json.loads((tmp_path / "steering.json").read_text())
    assert found["samples"] == ["own.png, other.png", "own2.png, the blue x"]
    run = Run(RunFolder.open(Path("run")))
    classes = mixed_latents(run.table["modality"])
    expected: list[tuple[str, str, list[int], float]] = [(own, ref, [], 0.0) for own, ref in both]
    expected += [(own, ref, latents, 0.5) for latents in classes.values() for own, ref in both]
    seen = [step["added_cond_kwargs"]["image_embeds"][0].flatten(0, -2)[-1] for step in told]
    assert len(seen) == len(expected)
    for rows, (own, ref, latents, alpha) in zip(seen, expected, strict=True):
        goal = by_hand(run, picture_at(own), picture_at(ref) if ref.endswith("png") else ref, latents, alpha)
        torch.testing.assert_close(directions(rows), directions(goal), rtol=1e-3, atol=1e-3)


def test_a_prompt_of_stable_diffusion_projects_to_the_mixed_embedding(
    here: Path, tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    done = mix(tmp_path, "--pipeline", "sd15", "--prompt", "a red x", "--reference", "other.png", "--dose", "0,1")
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    run = Run(RunFolder.open(Path("run")))
    classes = mixed_latents(run.table["modality"])
    assert len(told) == 1 + len(classes)
    for step, latents in zip(told, [[], *classes.values()], strict=True):
        states = step["encoder_hidden_states"][-1]
        end = len("a red x".replace(" ", "")) + 1
        projected = run.clip.text.project(states[end : end + 1])[0]
        goal = by_hand(run, "a red x", picture_at("other.png"), latents, 1.0)
        torch.testing.assert_close(directions(projected), directions(goal), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("pipeline", "given", "labels", "figures"),
    [
        (
            "unclip",
            ["--prompt", "a red x", "--prompt", "the blue z", "--reference", "other.png"],
            ["a red x", "the blue z"],
            {"cosine with the prompt"},
        ),
        (
            "unclip",
            ["--prompt", "a red x", "--reference", "other.png", "--reference", "second.png"],
            ["a red x, other.png", "a red x, second.png"],
            {"cosine with the prompt"},
        ),
        (
            "unclip-img2img",
            ["--image", "own.png", "--image", "own2.png", "--prompt", "a red x", "--reference", "other.png"],
            ["a red x, own.png", "a red x, own2.png"],
            {"cosine with the prompt", "cosine with the picture"},
        ),
    ],
)
def test_several_prompts_pictures_and_references(
    here: Path, tmp_path: Path, pipeline: str, given: list[str], labels: list[str], figures: set[str]
) -> None:
    done = mix(tmp_path, "--pipeline", pipeline, *given, "--dose", "0,1", "--seeds", "0,7", "--judge", JUDGE)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    found = json.loads((tmp_path / "steering.json").read_text())
    assert found["samples"] == [f"{label}, seed {seed}" for seed in (0, 7) for label in labels]
    row = next(r for r in found["mixed"] if r["class"] == "ImgD" and r["alpha"] == 1)
    assert {k for k in row if k.startswith("cosine") and not k.endswith("%")} == {REFERENCE, *figures}
    assert " to " in row[f"beyond random: {REFERENCE} 95 %"], "two samples, each averaged over its seeds"
    page = (tmp_path / "steering.html").read_text()
    assert page.count('alt="reference"') == given.count("--reference")
    moved = {r["class"]: r for r in found["mixed"] if r["alpha"] == 1}
    assert set(moved) >= {"ImgD", f"{RANDOM}ImgD", "all"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--pipeline", "sd15", "--prompt", "a", "--prompt", "b", *["--reference", "x"] * 2], "3 times or once"),
        (["--pipeline", "sd15", "--ip-adapter", "ip-adapter.safetensors", "--prompt", "a"], "pass --ip-image FILE"),
        (["--pipeline", "sd15", "--ip-image", "own.png", "--prompt", "a"], "pass --ip-adapter FILE"),
        (["--pipeline", "unclip-img2img", "--prompt", "a"], "of which it says: Provide either `image`"),
        (["--pipeline", "unclip", "--image", "own.png"], "give --prompt"),
    ],
)
def test_what_is_missing_is_said(here: Path, tmp_path: Path, given: list[str], says: str) -> None:
    refused = mix(tmp_path / "out", *given, "--reference", "other.png")
    assert isinstance(refused.exception, InputError), repr(refused.exception)
    assert says in str(refused.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("judge", ["open_clip:no-such-model", "words"])
def test_a_judge_is_tried_before_the_pipeline_is_opened(
    here: Path, tmp_path: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "open_pipeline", lambda request: pytest.fail("opened before the judge was tried"))
    given = ["--pipeline", "sd15", "--prompt", "a", "--reference", "other.png", "--judge", judge]
    assert isinstance(mix(tmp_path / "out", *given).exception, InputError)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (["--pipeline", "another-unclip"], "text"),
        (
            ["--pipeline", "sd15", "--ip-adapter", "another-adapter/ip-adapter.safetensors", "--ip-image", "own.png"],
            "image",
        ),
    ],
)
def test_the_encoder_of_another_model_is_refused(here: Path, tmp_path: Path, given: list[str], kind: str) -> None:
    refused = mix(tmp_path / "out", *given, "--prompt", "a red x", "--reference", "other.png")
    assert isinstance(refused.exception, MismatchError), repr(refused.exception)
    assert f"whose {kind} encoder is that of the run's model" in str(refused.exception)


def test_several_references_belong_to_a_mix(here: Path, tmp_path: Path) -> None:
    given = ["run", "--pipeline", "sd15", "--prompt", "a", "--edit", "class:ImgD~1", "--reference", "x"]
    refused = CliRunner().invoke(app, [*given, "--reference", "y", "--out", str(tmp_path / "out")])
    assert isinstance(refused.exception, InputError)
    assert "or pass --mix" in str(refused.exception)


def test_counts_of_samples() -> None:
    assert check_counts({"--prompt": 1, "--reference": 3}) == 3
    with pytest.raises(InputError, match="2 --prompt, 3 --reference"):
        check_counts({"--prompt": 2, "--reference": 3})


@pytest.mark.parametrize(
    ("pipeline", "options"),
    [
        ("sd15", {"prompts": ("a red x", "the blue z")}),
        ("unclip", {"prompts": ("a red x", "the blue z")}),
        ("unclip-img2img", {"images": (Path("own.png"), Path("own2.png"))}),
        ("sd15", {"ip_images": (Path("own.png"), Path("own2.png")), "ip_adapter": Path("ip-adapter.safetensors")}),
    ],
)
def test_a_sample_is_drawn_again_alone_with_the_seed_of_its_label(
    here: Path, tmp_path: Path, pipeline: str, options: dict[str, Any]
) -> None:
    run = Run(RunFolder.open(Path("run")))
    steering = ed.LatentSteering(run.dictionary, [ed.add([20], 1.0)])

    def drawn(seeds: tuple[int, ...], options: dict[str, Any]) -> dict[str, np.ndarray]:
        given: dict[str, Any] = {"run": Path("run"), "pipeline": Path(pipeline), "steps": 1, "doses": (0.0, 1.0)}
        own: dict[str, Any] = {"site": "vision.hook_embedding"} if "unclip" in pipeline else {"size": (32, 32)}
        request = SteeringRequest(out=tmp_path, edit=("20=+1",), seeds=seeds, **given, **own, **options)
        found = targets.PipelineTarget(request, run).over_doses(steering)
        return {
            f"{label}, {dose}": np.asarray(picture, dtype=int)
            for dose, column in zip(("plain", "edited"), found.columns, strict=True)
            for label, picture in zip(found.labels, column, strict=True)
        }

    both = drawn((3, 4), options)
    second = {name: value[1:] if isinstance(value, tuple) else value for name, value in options.items()}
    for name, picture in drawn((4,), second).items():
        label, dose = name.rsplit(", ", 1)
        there = both[f"{label}, seed 4, {dose}"]
        assert np.abs(picture - there).max() <= 1, "but for rounding in a batch"
        assert np.abs(picture - both[f"{label}, seed 3, {dose}"]).max() > 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--prompt", "a", "--reference", ""], "for --reference, but found ''"),
        (["--prompt", "a", "--reference", "  "], "for --reference, but found '  '"),
        (["--prompt", "a", "--prompt", "a", "--reference", "x"], "samples that differ, but found 'a, x' twice"),
        (["--prompt", "a", "--reference", "x", "--reference", "x"], "samples that differ, but found 'a, x' twice"),
        (["--prompt", "a", "--reference", "x", "--seeds", "1,0,1"], "seeds that differ, but found 1 twice"),
        (["--prompt", "a", "--reference", "x", "--dose", "0,.5,0.5"], "doses that differ, but found 0.5 twice"),
        (["--prompt", "a", "--reference", "x", "--dose", "0"], "a dose that edits, but found dose 0 alone"),
    ],
)
def test_what_is_repeated_or_empty_is_refused(here: Path, tmp_path: Path, given: list[str], says: str) -> None:
    refused = mix(tmp_path / "out", "--pipeline", "sd15", *given)
    assert isinstance(refused.exception, InputError), repr(refused.exception)
    assert says in str(refused.exception)
    assert not (tmp_path / "out").exists()


def test_the_same_prompt_goes_with_two_references(tmp_path: Path) -> None:
    SteeringRequest(out=tmp_path, run=tmp_path, mix=True, prompts=("a", "a"), reference=("x", "y"))
