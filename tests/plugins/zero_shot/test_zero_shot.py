"""`cliplens zero-shot`: probabilities of the stock formula, accuracy by folder with its interval, and words."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cliplens
from cliplens.analysis import explain_pair
from cliplens.cli import app
from cliplens.errors import InputError, NonFiniteError
from cliplens_plugins.zero_shot import accuracy, classified
from cliplens_plugins.zero_shot.classified import cut_sentences, named_classes

CLASSES = ["ring", "star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    for n, pair in enumerate(cliplens.read_pairs("world:40")):
        name = next((c for c in CLASSES if c in str(pair.caption)), "other")
        (made / name).mkdir(exist_ok=True)
        pair.image.save(made / name / f"{n}.png")
    (made / "ring" / "broken.png").write_bytes(b"no picture")
    return made


def test_probabilities_are_those_of_the_model(folder: Path) -> None:
    clip, pairs = cliplens.load("world", device="cpu"), cliplens.read_pairs(folder, modalities="image")
    ids, chances, bad = classified(clip, pairs, CLASSES, templates=["a {}"], batch_size=7)
    assert list(bad) == ["ring/broken.png"]
    assert len(ids) == len(chances) == 40
    with torch.no_grad():
        images = torch.stack([clip.preprocess(pairs[pairs.indices([i])[i]].image) for i in ids])  # type: ignore[misc]
        wanted = clip(images, clip.tokenizer([f"a {c}" for c in CLASSES])).softmax(-1)  # type: ignore[misc]
    np.testing.assert_allclose(chances, wanted.numpy(), atol=1e-5)


def test_the_command_prints_and_writes(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("ring\nstar\n")
    out = tmp_path / "table.csv"
    options = ["--classes", str(names), "--template", "a {}", "--out", str(out), "--batch-size", "8", "--device", "cpu"]
    done = CliRunner().invoke(app, ["zero-shot", "world", str(folder), *options])
    assert done.exit_code == 0, done.exception
    assert "ring/broken.png  not read:" in done.output
    assert done.output.count("trained on nothing but") == 1
    assert "Accuracy " in done.output
    assert "always the most frequent class" in done.output
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 40
    assert [float(r["ring"]) + float(r["star"]) for r in rows] == pytest.approx([1] * 40, abs=1e-5)


def test_one_picture_and_the_default_templates(folder: Path) -> None:
    one = next((folder / "ring").glob("[0-9]*.png"))
    done = CliRunner().invoke(app, ["zero-shot", "world", str(one), "--classes", "ring,star"])
    assert done.exit_code == 0, done.exception
    assert re.search(rf"{one.name}  (ring|star)  0\.\d+  \(next 0\.\d+\)", done.output)
    assert "Accuracy" not in done.output


@pytest.mark.parametrize("classes", ["", "cat,cat", "cat", "Cat,cat", "tabby cat,tabby_cat"])
def test_classes_are_names(folder: Path, classes: str) -> None:
    done = CliRunner().invoke(app, ["zero-shot", "world", str(folder), "--classes", classes])
    assert isinstance(done.exception, InputError)
    assert "--classes cat,dog" in str(done.exception)


def test_names_that_the_tokenizer_does_not_tell_apart_are_refused(folder: Path) -> None:
    clip = cliplens.load("world", device="cpu")
    with pytest.raises(InputError, match="'ring' and 'star', whose sentences have the same tokens"):
        clip.class_prototypes(CLASSES, templates=["very " * 100 + "{}"])
    assert cut_sentences(clip, CLASSES, ["very " * 100 + "{}", "a {}"]) == 2
    options = ["--classes", "ring,star", "--template", "a {} " + "very " * 100]
    done = CliRunner().invoke(app, ["zero-shot", "world", str(folder), *options])
    assert "2 of the 2 sentences about the classes are longer than the model's context" in done.output
    done = CliRunner().invoke(app, ["zero-shot", "world", str(folder / "ring" / "broken.png"), "--classes", "a,b"])
    assert isinstance(done.exception, InputError)
    assert "a picture that can be opened" in str(done.exception)


def test_a_file_of_classes_is_read_as_it_was_meant_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes("\ufeffstern\nübung\n".encode())
    assert named_classes(str(file)) == ["stern", "übung"]
    for encoding in ("utf-16", "latin-1"):
        file.write_text("stern\nübung\n", encoding=encoding)
        with pytest.raises(InputError, match="another encoding"):
            named_classes(str(file))
    with pytest.raises(InputError, match="a text file of class names"):
        named_classes(str(tmp_path / "missing.txt"))


def test_half_precision_rounds_no_probabilities_and_nan_is_no_class(folder: Path) -> None:
    pairs = cliplens.read_pairs(folder, modalities="image")
    whole = classified(cliplens.load("world", device="cpu"), pairs, CLASSES)[1]
    clip = cliplens.load("world", device="cpu", dtype="bfloat16")
    half = classified(clip, pairs, CLASSES)[1]
    np.testing.assert_allclose(half.sum(1), 1, rtol=1e-12)
    assert np.abs(half - whole).max() < 0.2
    with torch.no_grad():
        next(clip.model.visual.parameters()).fill_(torch.nan)  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteError, match="embeddings of the pictures"):
        classified(clip, pairs, CLASSES)
    with pytest.raises(NonFiniteError, match="embeddings of the images"):
        clip.zero_shot(torch.zeros(1, 3, 48, 48, dtype=torch.bfloat16), CLASSES)
    with pytest.raises(NonFiniteError, match="embeddings of the picture"):
        explain_pair(clip, pairs[0].image, "a ring")


def test_a_bad_pretrained_tag_and_template_are_refused(folder: Path) -> None:
    for options in (["--pretrained", "nothing"], ["--template", "a photo"]):
        done = CliRunner().invoke(app, ["zero-shot", "world", str(folder), "--classes", "cat", *options])
        assert isinstance(done.exception, InputError)


def test_accuracy_has_an_interval_and_a_control() -> None:
    ids = [f"tabby_cat/{n}.png" for n in range(8)] + [f"dog/{n}.png" for n in range(2)] + ["x.png"]
    found = accuracy(ids, ["tabby cat"] * 10 + ["dog"], ["tabby cat", "dog"])
    assert found is not None
    assert (found.share, found.largest, found.pictures) == (0.8, 0.8, 10)
    assert found.low < 0.8 < found.high
    assert accuracy(["x.png"], ["dog"], ["dog"]) is None
