"""Exports reload: Neuronpedia's lines keep its schema, SAELens opens the folder, tables keep every value."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens.errors import InputError
from cliplens.records import LatentTable
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, dictionary_config
from cliplens_plugins.export import export_huggingface, export_neuronpedia, export_table
from cliplens_plugins.export.command import app
from support.run_folders import make_run_folder

ACTIVATION = {
    "modelId": str,
    "layer": str,
    "index": str,
    "tokens": list,
    "values": list,
    "maxValue": float,
    "maxValueTokenIndex": int,
}
FEATURE = {"modelId": str, "layer": str, "index": str, "frac_nonzero": float}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=18, pairs=60)


def lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def test_neuronpedia_lines_keep_the_schema(run: RunFolder, tmp_path: Path) -> None:
    folder = export_neuronpedia(run, tmp_path / "np")
    assert folder == tmp_path / "np" / "world" / "final-cliplens"
    for name in ("release", "model", "sourceset", "source"):
        assert len(lines(folder / f"{name}.jsonl")) == 1
    features, activations = lines(folder / "features/batch-0.jsonl.gz"), lines(folder / "activations/batch-0.jsonl.gz")
    assert [f["index"] for f in features] == [str(k) for k in range(18)]
    for rows, schema in ((features, FEATURE), (activations, ACTIVATION)):
        for row in rows:
            assert all(isinstance(row[key], kind) for key, kind in schema.items()), row
    for row in activations:
        assert len(row["tokens"]) == len(row["values"])
        assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"])


def test_neuronpedia_pictures_lie_beside_their_pseudo_tokens(run: RunFolder, tmp_path: Path) -> None:
    folder = export_neuronpedia(run, tmp_path / "np")
    named = {row["token"]: row["file"] for row in lines(folder / "images.jsonl")}
    assert named
    assert all((folder / file).is_file() for file in named.values())
    shown = {
        t for row in lines(folder / "activations/batch-0.jsonl.gz") if row["modality"] == "image" for t in row["tokens"]
    }
    assert set(named) <= shown


def test_the_same_run_exports_the_same_bytes(run: RunFolder, tmp_path: Path) -> None:
    first, second = (export_neuronpedia(run, tmp_path / name) for name in "ab")
    for file in first.rglob("*.gz"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


def test_csv_and_parquet_keep_every_value(run: RunFolder, tmp_path: Path) -> None:
    table = LatentTable.load(run.latents)
    export_table(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    mds = np.array([float(r["mds"]) if r["mds"] else np.nan for r in rows])
    np.testing.assert_array_equal(mds, table["mds"])
    assert [r["name"] for r in rows] == table["name"].tolist()
    again = LatentTable.load(export_table(table, tmp_path / "t.parquet"))
    np.testing.assert_array_equal(again["mds"], table["mds"])
    assert again.schema == table.schema
    with pytest.raises(InputError, match=r"ending in \.csv or \.parquet"):
        export_table(table, tmp_path / "t.xlsx")


def test_saelens_opens_the_exported_folder(run: RunFolder, tmp_path: Path) -> None:
    from sae_lens import SAE, TrainingSAE

    if not (run.sae / "cfg.json").exists():
        torch.manual_seed(0)
        trained = TrainingSAE.from_dict(dictionary_config("topk", 8, d_sae=18, k=4).to_dict())
        means = {"image": torch.randn(8), "text": torch.randn(8)}
        Dictionary(trained, means, None).save(run.sae)
    out = export_huggingface(run, tmp_path / "hf")
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: saelens\n")
    assert "18 latents" in card
    acts = torch.randn(5, 8)
    for name in ("image", "text"):
        there, here = SAE.load_from_disk(out / name, device="cpu"), SAE.load_from_disk(run.sae / name, device="cpu")
        torch.testing.assert_close(there.encode(acts), here.encode(acts))
    assert (out / "shared" / "cfg.json").is_file()
    assert not (out / "shared" / "image").exists()
    assert (out / "exemplars" / "exemplars.parquet").is_file()


def test_nothing_is_written_over(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with pytest.raises(InputError, match="to be missing or empty"):
        export_neuronpedia(run, tmp_path)


def test_a_run_without_a_dictionary_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write_settings({"asked": {}})
    with pytest.raises(InputError, match="Expected a dictionary in"):
        export_huggingface(run, tmp_path / "hf")
    with pytest.raises(InputError, match="Expected a scored run"):
        export_neuronpedia(run, tmp_path / "np")


def test_commands(run: RunFolder, tmp_path: Path) -> None:
    for command, out in (("table", "t.csv"), ("neuronpedia", "np")):
        done = CliRunner().invoke(app, [command, str(run.path), "--out", str(tmp_path / out)])
        assert done.exit_code == 0, done.output
        assert "Written:" in done.output
