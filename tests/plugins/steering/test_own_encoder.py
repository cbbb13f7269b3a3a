"""From a pipeline on disk and a table of captions to a strip of pictures, in three commands."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny_pipelines as tiny

pytest.importorskip("diffusers", reason="steering pipelines needs the extra [diffusion]")
WORDS = {"red": "crimson", "blue": "azure", "green": "emerald"}


def cliplens(*arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "cliplens", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_three_commands_from_a_folder_of_stable_diffusion_to_pictures(tmp_path: Path) -> None:
    tiny.stable_diffusion().save_pretrained(tmp_path / "sd15")
    rng = random.Random(0)
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption"])
        rows.writerows([[f"{rng.choice(['a', 'the'])} {rng.choice([*WORDS])} {rng.choice('xyz')}"] for _ in range(600)])
    small = ["--d-sae", 64, "--k", 4, "--samples", 20000, "--batch-size", 256, "--namer", "captions"]
    where = ["--tower", "text", "--hook", "blocks.1.hook_resid_post"]
    cliplens(
        "run",
        "--model",
        "hf:sd15/text_encoder",
        "--pairs",
        "captions.csv",
        *where,
        *small,
        "--out",
        "run",
        cwd=tmp_path,
    )
    found = cliplens("find", "run", "red", cwd=tmp_path)
    assert "yes" in found
    asked = ["--prompt", "a red x", "--edit", "red->blue=+2x", "--dose", "0,1,2", "--steps", 2, "--size", "32x32"]
    said = cliplens("steer", "run", "--pipeline", "sd15", *asked, "--out", "out", cwd=tmp_path)
    assert "conditioning" in said
    rows_ = json.loads((tmp_path / "out" / "steering.json").read_text())["measured"]
    assert rows_[0]["conditioning moved"] == 0
    assert rows_[2]["conditioning moved"] > 0
    assert rows_[2]["picture moved"] > 0
