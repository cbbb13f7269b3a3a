"""The script that makes the tables of papers on own weights runs end to end, on COCO's and CC3M's layout."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from support.tiny import tiny_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "with_weights.py"
COUNT = 160
VOCABULARY = 49408
"""Size of open_clip's own tokenizer, which a saved model names by its configuration."""
TITLES = ("Modality classes", "Ablation of classes", "MS of images", "MS as published", "Fidelity", "Names", "Bias")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny open_clip model as a folder with its configuration and weights."""
    folder = tmp_path_factory.mktemp("model")
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": VOCABULARY, "width": 48, "heads": 3, "layers": 2}
    made = tiny_model(vision=vision, text=text)
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def captions() -> list[str]:
    words = [("red", "blue", "green"), ("dog", "cat", "bird", "car"), ("runs", "sleeps")]
    return [f"a {words[0][n % 3]} {words[1][n % 4]} {words[2][n % 2]} here, number {n}" for n in range(COUNT)]


def coco(root: Path) -> Path:
    """Write annotations/captions_val2017.json and val2017/ as COCO has them, two captions per image."""
    names = [f"{n:012d}.jpg" for n in range(COUNT)]
    pictures(root / "val2017", names)
    images = [{"id": n, "file_name": name, "height": 40, "width": 40} for n, name in enumerate(names)]
    said = [{"id": 2 * n + k, "image_id": n, "caption": f"{c} {k}"} for n, c in enumerate(captions()) for k in (0, 1)]
    path = root / "annotations" / "captions_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": said, "info": {}, "licenses": []}))
    return path


def cc3m(root: Path) -> Path:
    """Write a TSV of captions and URLs without a header, and images named by the row."""
    pictures(root / "images", [f"{n:08d}.jpg" for n in range(COUNT)])
    path = root / "Validation_GCC-1.1.0-Validation.tsv"
    with path.open("w", newline="") as file:
        rows = ([caption, f"http://example.org/{n}/picture"] for n, caption in enumerate(captions()))
        csv.writer(file, delimiter="\t").writerows(rows)
    return path


def waterbirds(root: Path) -> None:
    rows = ["img_id,img_filename,y,split,place,place_filename"]
    names = [f"{n}.png" for n in range(32)]
    pictures(root, names)
    rows += [f"{n},{name},{n % 2},{0 if n < 16 else 2},{(n // 2) % 2},/x" for n, name in enumerate(names)]
    (root / "metadata.csv").write_text("\n".join(rows))


def made(tmp_path: Path, model: Path, pairs: Path, *more: str) -> tuple[dict[str, Any], str]:
    small = ["--d-sae", "48", "--k", "4", "--samples", "1024", "--batch-size", "32", "--tasks", "16", "--controls", "2"]
    options = ["--model", f"local-dir:{model}", "--pairs", str(pairs), "--out", str(tmp_path / "out"), *small, *more]
    command = [sys.executable, str(SCRIPT), *options, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((tmp_path / "with_weights.json").read_text()), (tmp_path / "out/with_weights.html").read_text()


def test_coco(tmp_path: Path, model: Path) -> None:
    waterbirds(tmp_path / "birds")
    more = ("--bias", f"waterbirds:{tmp_path / 'birds'}", "--bias-draws", "5", "--bias-images", "16")
    result, page = made(tmp_path, model, coco(tmp_path / "coco"), *more)
    titles = [table["title"] for table in result["tables"]]
    assert not [title for title in titles if "not made" in title], result["tables"]
    for wanted in (*TITLES, "Modality gap", "Bias, waterbirds"):
        assert any(title.startswith(wanted) for title in titles), (wanted, titles)
        assert wanted in page
    assert result["notes"]["pairs"] == 2 * COUNT
    assert result["notes"]["largest difference of MS from the loop over pairs of sae-for-vlm"] < 1e-9
    gap = next(table for table in result["tables"] if table["title"].startswith("Modality gap"))
    assert gap["rows"][1][1] == 0.851


def test_cc3m(tmp_path: Path, model: Path) -> None:
    path = cc3m(tmp_path / "cc3m")
    result, page = made(tmp_path, model, path, "--image-root", str(path.parent / "images"))
    titles = [table["title"] for table in result["tables"]]
    assert [title for title in titles if "not made" in title] == ["Bias: not made"]
    assert "add --bias" in page
    again, _ = made(tmp_path, model, path, "--image-root", str(path.parent / "images"))
    assert [t["rows"] for t in again["tables"][:1]] == [t["rows"] for t in result["tables"][:1]]


def test_pairs_are_needed() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Expected --pairs" in done.stderr


def test_published_embeddings_have_the_gap_that_is_quoted() -> None:
    import os

    folder = os.environ.get("CLIPLENS_DATA")
    path = Path(folder or ".") / "coco500" / "coco500_clip_vitb16.npz"
    if not path.exists():
        pytest.skip("needs coco500 in the folder of CLIPLENS_DATA")
    found = np.load(path)
    assert np.linalg.norm(found["image"].mean(0) - found["text"].mean(0)) == pytest.approx(0.851, abs=5e-4)
