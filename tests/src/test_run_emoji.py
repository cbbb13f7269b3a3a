"""The main job on real drawings with damaged ones among them (needs CLIPLENS_DATA)."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from cliplens.errors import PairsError
from cliplens.run import Settings, run

DATA = os.environ.get("CLIPLENS_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="CLIPLENS_DATA is unset: no real drawings to run on")
KEPT = 200


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    """Drawings and names, three images damaged in three ways, one caption empty."""
    source = Path(str(DATA)) / "noto_emoji"
    images = tmp_path / "images"
    images.mkdir()
    with (source / "emoji.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:KEPT]
    for row in rows:
        shutil.copyfile(source / "images" / row["file"], images / row["file"])
    (images / rows[10]["file"]).write_bytes(b"this is no picture")
    whole = (images / rows[20]["file"]).read_bytes()
    (images / rows[20]["file"]).write_bytes(whole[: len(whole) // 2])
    (images / rows[30]["file"]).unlink()
    rows[40]["name"] = "   "
    with (tmp_path / "emoji.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def _settings(emoji: Path, **options: object) -> Settings:
    columns = {"image_column": "file", "caption_column": "name", "image_root": str(emoji / "images")}
    small = {"d_sae": 64, "k": 6, "samples": 2048, "batch_size": 128}
    return Settings(pairs=str(emoji / "emoji.csv"), **columns, **small, **options)  # type: ignore[arg-type]


def test_damaged_pairs_are_named_and_nothing_else_is_lost(emoji: Path, tmp_path: Path) -> None:
    folder = run(_settings(emoji, max_bad=0.02), tmp_path / "run")
    quarantined = [json.loads(line) for line in folder.quarantine.read_text().splitlines()]
    assert len(quarantined) == 4
    assert all(set(line) >= {"id", "image", "caption", "reason"} and line["reason"] for line in quarantined)
    summary = json.loads(folder.summary.read_text())
    assert (summary["pairs"], summary["quarantined"]) == (KEPT - 4, 4)
    notes = " ".join(json.loads(folder.findings.read_text())["notes"])
    assert "Out of domain" in notes
    assert f"{summary['truncated']} captions were longer" in notes
    assert "Out of domain" in folder.report.read_text()


def test_too_many_bad_pairs_stop_the_run_and_list_the_first(emoji: Path, tmp_path: Path) -> None:
    for path in sorted((emoji / "images").iterdir())[100:160]:
        path.unlink()
    with pytest.raises(PairsError, match="max"):
        run(_settings(emoji), tmp_path / "run")
