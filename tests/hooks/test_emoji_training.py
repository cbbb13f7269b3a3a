"""The training of the model of real drawings, in a few steps on tiny data of the same layout."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cliplens.pairs.emoji import LANGUAGES
from cliplens_hooks.models.emoji import CONTEXT, emoji_tokenizer
from cliplens_hooks.training.emoji import (
    RECIPES,
    Recipe,
    Training,
    app,
    encode_captions,
    encode_text,
    save_model,
    schedule,
    train,
)
from cliplens_hooks.training.emoji_data import Data
from cliplens_hooks.training.emoji_text import learnt_merges
from cliplens_hooks.training.muon import Muon, orthogonal

PROFESSIONS = {"1f373": "cook", "1f33e": "farmer", "1f680": "astronaut"}
TONES = {"": "default", "1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark"}
TONES |= {"1f3ff": "dark"}
HEAD = ("file", "codepoints", "name", "group", "subgroup", "gender", "skin_tone", "tags")
SMALL = Recipe(steps=2, batch=16, warm_up=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three professions in every cell and twenty other emoji, by three artists, in all languages."""
    rows = [(f"{n:x}", f"thing {n}", "Objects", "tool", "", "", "a|b") for n in range(0x1F400, 0x1F414)]
    for job, said in PROFESSIONS.items():
        for person, gender in (("1f9d1", "neutral"), ("1f469", "woman"), ("1f468", "man")):
            for tone, shade in TONES.items():
                codes = "_".join(part for part in (person, tone, "200d", job) if part)
                rows.append((codes, f"{gender} {said}: {shade}", "People & Body", "person-role", gender, shade, said))
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for artist in ("noto_emoji", "twemoji", "fluent_emoji"):
        (folder / artist / "images").mkdir(parents=True)
        with (folder / artist / "emoji.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([HEAD, *((f"{row[0]}.png", *row) for row in rows)])
        for row in rows:
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / artist / "images" / f"{row[0]}.png")
    (folder / "emoji_languages").mkdir()
    names = [(row[0], language, f"{language} {row[1]}", row[6]) for language in LANGUAGES for row in rows]
    columns = dict(zip(("codepoints", "language", "name", "tags"), map(list, zip(*names, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "emoji_languages" / "emoji_languages.parquet")
    return folder


@pytest.fixture
def data(root: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setenv("CLIPLENS_DATA", str(root))
    return Data()


def test_a_batch_holds_distinct_emoji_and_depends_on_the_random_numbers_alone(data: Data) -> None:
    for step in range(6):
        batch = data.batch(16, np.random.default_rng(step))
        again = data.batch(16, np.random.default_rng(step))
        assert len(batch.pixels) == len(batch.english) == len(batch.other) == 16
        assert batch.english == again.english
        assert torch.equal(batch.pixels, again.pixels)
        assert (batch.language > 0).all()


def test_no_batch_holds_what_is_kept_from_training(data: Data) -> None:
    from cliplens.pairs.emoji import data_folder, drawings, is_unseen

    every = drawings(data_folder() / "noto_emoji", "noto")
    unseen = {d.codepoints for d in every if is_unseen(d)}
    assert unseen
    assert not unseen & set(data._rows)
    assert len(data._rows) + len(unseen) == len(every)


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(data: Data, tmp_path: Path) -> None:
    whole = Training(SMALL, data)
    for _ in range(2):
        whole.advance()
    first = Training(SMALL, data)
    first.advance()
    first.save(tmp_path / "checkpoint.safetensors")
    second = Training(SMALL, data)
    assert second.resume(tmp_path / "checkpoint.safetensors")
    assert second.step == 1
    second.advance()
    one, other = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not Training(replace(SMALL, seed=1), data).resume(tmp_path / "checkpoint.safetensors")
    assert not Training(SMALL, data).resume(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["clip", "plain"])
def test_a_recipe_trains_and_saves_what_open_clip_opens(name: str, data: Data, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], steps=2, batch=16)
    model = train(recipe, data)
    save_model(model, tmp_path, recipe=recipe)
    again = open_clip.create_model(f"local-dir:{tmp_path}")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.half().float())


def test_twins_differ_in_what_they_are_twins_in() -> None:
    ours = vars(RECIPES["clip"])
    differ = {name: {k for k in ours if ours[k] != vars(recipe)[k]} for name, recipe in RECIPES.items()}
    assert differ == {
        "clip": set(),
        "seed1": {"seed"},
        "seed2": {"seed"},
        "plain": {"picture", "words", "artist", "language", "noise"},
        "two-artists": {"artists"},
    }
    assert not RECIPES["plain"].keeps
    assert schedule(0, SMALL) == 0.5
    assert schedule(SMALL.steps, SMALL) == 0


def test_short_captions_are_embedded_as_the_stock_model_does(data: Data) -> None:
    model = Training(SMALL, data).model.eval().double()
    captions = [data.encode("a cat"), data.encode("woman cook: dark skin tone, hat"), data.encode("x" * 300)]
    tokens = data.padded(captions)
    full = emoji_tokenizer()(["a cat", "woman cook: dark skin tone, hat"])
    assert tokens.shape == (3, CONTEXT)
    with torch.no_grad():
        ours = encode_text(model, tokens)
        apart = encode_captions(model, data, captions)
        stock = model.encode_text(full, normalize=True)
    assert (ours - apart).abs().max() < 1e-12
    assert (ours[:2] - stock).abs().max() < 1e-12


def test_muon_agrees_with_torch(data: Data) -> None:
    torch.manual_seed(0)
    shapes = ((24, 8), (8, 8), (8, 24), (8, 8))
    ours = [torch.randn(shape).requires_grad_() for shape in shapes]
    theirs = [matrix.detach().clone().requires_grad_() for matrix in ours]
    before = [matrix.detach().clone() for matrix in ours]
    one = Muon(ours, lr=0.02)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        one.step()
        other.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        assert (a - b).norm() < 0.02 * (b - start).norm()  # theirs is in bfloat16


def test_orthogonal_matrices_have_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0))))
    assert 0.6 < values.min() < values.max() < 1.3


def test_merges_join_what_is_frequent() -> None:
    merges = learnt_merges(["banana banana band", "ba na"], 6)
    assert len(merges) == 6
    assert {len(merge.split(" ")) for merge in merges} == {2}
    assert "a n" in merges or "n a" in merges or "b a" in merges


def test_the_command_writes_a_folder_and_says_where_the_data_are_missing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLENS_DATA", str(root))
    monkeypatch.setitem(RECIPES, "seed1", replace(SMALL, seed=1))
    made = CliRunner().invoke(app, ["seed1", "--out", str(tmp_path / "seed1"), "--steps", "1"])
    assert made.exit_code == 0, made.output
    assert {file.name for file in (tmp_path / "seed1").iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    assert json.loads((tmp_path / "seed1" / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"] == 96
    monkeypatch.delenv("CLIPLENS_DATA")
    refused = CliRunner().invoke(app, ["seed1", "--out", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert "set CLIPLENS_DATA" in refused.output
