"""Exports reload: Neuronpedia's lines keep its schema, SAELens opens the folder, tables keep every value."""

import csv
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens.errors import InputError
from cliplens.exemplars import load_exemplars, save_positions
from cliplens.records import LatentTable, PositionActivations
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, dictionary_config
from cliplens_plugins.export import export_huggingface, export_neuronpedia, export_table
from cliplens_plugins.export.command import app
from support import hub_server
from support.run_folders import make_run_folder
from support.served import serving

KINDS = {
    "release.jsonl": "release",
    "model.jsonl": "model",
    "sourceset.jsonl": "sourceset",
    "source.jsonl": "source",
    "features/batch-0.jsonl.gz": "feature",
    "activations/batch-0.jsonl.gz": "activation",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run_folder(tmp_path_factory.mktemp("run") / "run", latents=18, pairs=60)


def with_dictionary(run: RunFolder) -> None:
    from sae_lens import TrainingSAE

    if not (run.sae / "cfg.json").exists():
        torch.manual_seed(0)
        trained = TrainingSAE.from_dict(dictionary_config("topk", 8, d_sae=18, k=4).to_dict())
        means = {"image": torch.randn(8), "text": torch.randn(8)}
        Dictionary(trained, means, None).save(run.sae)


def lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def validated(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every line of every file, held against the schema of its kind."""
    schema = json.loads((files("cliplens_plugins.export") / "assets" / "neuronpedia.schema.json").read_text())
    found = {name: lines(folder / name) for name in KINDS}
    for name, rows in found.items():
        validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{KINDS[name]}", "$defs": schema["$defs"]})
        assert rows
        for row in rows:
            validator.validate(row)
    return found


def test_neuronpedia_lines_keep_the_schema(run: RunFolder, tmp_path: Path) -> None:
    folder = export_neuronpedia(run, tmp_path / "np")
    assert folder == tmp_path / "np" / "world" / "final-cliplens"
    found = validated(folder)
    for name in ("release", "model", "sourceset", "source"):
        assert len(found[f"{name}.jsonl"]) == 1
    assert [f["index"] for f in found["features/batch-0.jsonl.gz"]] == [str(k) for k in range(18)]
    for row in found["activations/batch-0.jsonl.gz"]:
        assert len(row["tokens"]) == len(row["values"])
        assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"])
    beside = lines(folder / "latents.jsonl")
    table = LatentTable.load(run.latents)
    assert [row["modality"] for row in beside] == list(table["modality"])
    assert {row["name"] for row in beside} - {None} <= set(table["name"])


def test_a_line_with_an_unknown_or_missing_field_is_no_line_of_the_schema(run: RunFolder, tmp_path: Path) -> None:
    folder = export_neuronpedia(run, tmp_path / "np")
    for change in ({"surprise": 1}, {"id": None}):
        row = {**lines(folder / "model.jsonl")[0], **change}
        (folder / "model.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(jsonschema.ValidationError):
            validated(folder)


def test_neuronpedia_pictures_lie_beside_their_activations(run: RunFolder, tmp_path: Path) -> None:
    folder = export_neuronpedia(run, tmp_path / "np")
    named = {row["activation"]: row["file"] for row in lines(folder / "images.jsonl")}
    assert named
    assert all((folder / file).is_file() for file in named.values())
    shown = {row["id"] for row in lines(folder / "activations/batch-0.jsonl.gz") if row["dataSource"] == "image"}
    assert set(named) <= shown


def test_neuronpedia_gets_patches_tokens_strengths_and_neighbours_where_the_run_has_them(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path / "run", latents=6, pairs=40)
    images, texts = load_exemplars(run.exemplars)
    assert images is not None
    assert texts is not None
    k = next(n for n in range(6) if images.of(n))
    j = next(n for n in range(6) if texts.of(n))
    caption = texts.of(j)[0][0].caption or ""
    first = caption.index(" ")
    patches, tokens = (
        PositionActivations(np.array([0.0, 2.0, 1.0, 0.0]), (2, 2)),
        PositionActivations(np.array([0.5, 1.5]), None, ((0, first), (first + 1, len(caption)))),
    )
    save_positions(run.exemplars, {("image", k, 0): patches, ("text", j, 0): tokens})
    table = LatentTable.load(run.latents)
    counts = np.zeros((6, 40), dtype=np.int64)
    counts[k, 24] = 7
    near = np.tile(np.arange(5), (6, 1))
    table.with_columns({"hist_image": counts, "neighbours": near, "neighbour_cosine": near / 10}).save(run.latents)
    found = validated(export_neuronpedia(run, tmp_path / "np"))
    rows = {row["id"]: row for row in found["activations/batch-0.jsonl.gz"]}
    seen, said = rows[f"{k}-image-0"], rows[f"{j}-text-0"]
    assert seen["tokens"] == [f"Image_patch_{n}" for n in range(4)]
    assert (seen["values"], seen["maxValueTokenIndex"]) == ([0.0, 2.0, 1.0, 0.0], 1)
    assert "".join(said["tokens"]) == caption
    assert said["values"] == [0.5, 1.5]
    feature = found["features/batch-0.jsonl.gz"][k]
    assert (feature["freq_hist_data_bar_heights"], feature["freq_hist_data_bar_values"]) == ([7.0], [1.0])
    assert feature["topkCosSimIndices"] == [0, 1, 2, 3, 4]


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
    from sae_lens import SAE

    with_dictionary(run)
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


def test_only_push_uploads_and_what_arrives_is_what_lies_in_the_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with_dictionary(run)
    with serving(hub_server.Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "not-a-token")
        done = CliRunner().invoke(app, ["huggingface", str(run.path), "--out", str(tmp_path / "kept")])
        assert done.exit_code == 0, done.output
        assert hub.paths == []
        out = tmp_path / "pushed"
        done = CliRunner().invoke(app, ["huggingface", str(run.path), "--out", str(out), "--push", "me/it"])
        assert done.exit_code == 0, (done.output, done.exception)
    assert [repo["name"] for repo in hub.created] == ["it"]
    # Which of the two fields says so depends on the version of huggingface_hub.
    assert hub.created[0].get("visibility", "private" if hub.created[0].get("private") else None) == "private"
    lying = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert hub.files == lying


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
