"""Exports reload: Neuronpedia's lines keep its schema, SAELens opens the folder, tables keep every value."""

import csv
import gzip
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens.errors import CliplensError, InputError
from cliplens.exemplars import load_exemplars, save_positions
from cliplens.files import write_json
from cliplens.records import LatentTable, ModelIdentity, PositionActivations, Provenance
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, dictionary_config
from cliplens_plugins.export import export_huggingface, export_neuronpedia, export_table
from cliplens_plugins.export.command import app
from cliplens_plugins.export.local_paths import without_local_paths
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
    "explanations/batch-0.jsonl.gz": "explanation",
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


def test_names_are_explanations_of_the_features(run: RunFolder, tmp_path: Path) -> None:
    found = validated(export_neuronpedia(run, tmp_path / "np", creator_id="somebody"))
    told, features = found["explanations/batch-0.jsonl.gz"], found["features/batch-0.jsonl.gz"]
    table = LatentTable.load(run.latents)
    names = {str(k): name for k, name in enumerate(table["name"]) if name != "unnamed"}
    assert {line["index"]: line["description"] for line in told} == names
    assert len({line["id"] for line in told}) == len(told)
    known = {(f["modelId"], f["layer"], f["index"]) for f in features}
    assert all((t["modelId"], t["layer"], t["index"]) in known for t in told)
    assert {(t["authorId"], t["typeName"], t["explanationModelName"]) for t in told} == {
        ("somebody", "cliplens_vocabulary", "cliplens")
    }


def test_limits_of_the_importer_hold_for_long_names_and_many_patches(run: RunFolder, tmp_path: Path) -> None:
    long = RunFolder(tmp_path / "long")
    shutil.copytree(run.path, long.path)
    table = LatentTable.load(run.latents)
    names, evidence = table["name"].copy(), table["name_evidence"].copy()
    names[0], evidence[0] = "x" * 600, "llava on its top image samples"
    table.with_columns({"name": names, "name_evidence": evidence}).save(long.latents)
    values = np.zeros(2048)
    values[1999] = 2.0
    save_positions(long.exemplars, {("image", 0, 0): PositionActivations(values, (32, 64))})
    found = validated(export_neuronpedia(long, tmp_path / "np"))
    told = next(line for line in found["explanations/batch-0.jsonl.gz"] if line["index"] == "0")
    assert len(told["description"]) == 512
    assert told["explanationModelName"] == "llava"
    row = next(line for line in found["activations/batch-0.jsonl.gz"] if line["id"] == "0-image-0")
    assert len(row["tokens"]) == len(row["values"]) == 1024
    assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == 2.0
    assert row["tokens"][row["maxValueTokenIndex"]] == "Image_patch_1999"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1"])
def test_a_csv_holds_no_formula(text: str, tmp_path: Path) -> None:
    table = LatentTable({"name": np.array([text, "a = b"], dtype=object), "mds": np.array([-0.5, np.nan])})
    with export_table(table, tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "mds"], [f"'{text}", "-0.5"], ["a = b", ""]]
    assert LatentTable.load(export_table(table, tmp_path / "t.parquet"))["name"][0] == text


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("/home/me/my data/pairs.csv", "pairs.csv"),
        ("hf:/home/me/clip", "hf:clip"),
        ("file:/a/judge.npz", "file:judge.npz"),
        ("file:///a/b.csv", "b.csv"),
        ("~/b.csv", "b.csv"),
        (r"C:\me\b.csv", "b.csv"),
        ("read from /home/me/b.csv at noon", "read from b.csv at noon"),
        ("data/pairs.csv", "data/pairs.csv"),
        ("https://host/a/b.csv", "https://host/a/b.csv"),
        ("s3://bucket/a/b.csv", "s3://bucket/a/b.csv"),
        ("world:3000", "world:3000"),
        ("a/b and/or c", "a/b and/or c"),
    ],
)
def test_local_paths_are_reduced_to_names(text: str, shared: str) -> None:
    assert without_local_paths({"a": [text, 3]}) == {"a": [shared, 3]}


def test_nothing_shared_names_a_folder_of_this_machine_or_follows_a_link(run: RunFolder, tmp_path: Path) -> None:
    with_dictionary(run)
    home = RunFolder(tmp_path / "secret-home" / "run")
    shutil.copytree(run.path, home.path)
    settings, secret = home.read_settings(), str(tmp_path / "secret-home")
    settings["asked"]["pairs"] = f"{secret}/pairs.csv"
    settings["asked"]["model"] = settings["model"]["name"] = f"hf:{secret}/clip"
    home.write_settings(settings)
    write_json(home.summary, {**json.loads(home.summary.read_text()), "model": f"hf:{secret}/clip"})
    identity = ModelIdentity(f"hf:{secret}/clip", f"{secret}/w.pt", "0", "{}", "0", "0")
    dictionary = Dictionary.load(home.sae)
    provenance = Provenance(identity, ("vision.hook_embedding", "text.hook_embedding"), 8, "auto", True)
    dictionary.sae.cfg.metadata.dataset_path = f"{secret}/pairs.csv"
    Dictionary(dictionary.sae, dictionary.means, provenance).save(home.sae)
    (tmp_path / "passwords").write_text("hunter2")
    (home.exemplars / "link.txt").symlink_to(tmp_path / "passwords")
    (home.sae / "link.txt").symlink_to(tmp_path / "passwords")
    for out in (export_huggingface(home, tmp_path / "hf"), export_neuronpedia(home, tmp_path / "np")):
        for file in out.rglob("*"):
            held = b"" if file.is_dir() else file.read_bytes()
            assert secret.encode() not in held, file
            assert b"hunter2" not in held, file
    assert Dictionary.load(tmp_path / "hf" / "shared").provenance is not None


def test_a_damaged_dictionary_is_not_exported(run: RunFolder, tmp_path: Path) -> None:
    with_dictionary(run)
    for name in ("sae_weights.safetensors", "cfg.json"):
        damaged = RunFolder(tmp_path / name)
        shutil.copytree(run.path, damaged.path)
        whole = (damaged.sae / name).read_bytes()
        (damaged.sae / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CliplensError):
            export_huggingface(damaged, tmp_path / f"{name}-out")
        assert not (tmp_path / f"{name}-out").exists()
