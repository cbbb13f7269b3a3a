import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

from cliplens.cli import app
from faults.support import cliplens

LIGHT = """
import sys, {module}
heavy = {{"torch", "sae_lens", "open_clip", "transformer_lens", "transformers", "datasets"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""


@pytest.mark.parametrize("module", ["cliplens", "cliplens.cli"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(module=module)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["words", "--help"], ["bias", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    run = f"sys.argv[1:] = {arguments}\ntry:\n    cliplens.cli.main()\nexcept SystemExit:\n    pass\n"
    checked = LIGHT.format(module="cliplens.cli").replace("heavy =", f"{run}heavy =", 1)
    done = subprocess.run([sys.executable, "-c", checked], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_missing_column_is_told_before_torch_is_imported(kind: str, tmp_path: Path) -> None:
    table = pandas.DataFrame({"image": ["a.png"], "words": ["a cat"]})
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    arguments = ["run", "--pairs", str(path), "--image-column", "image", "--out", str(tmp_path / "run")]
    run = f"sys.argv[1:] = {arguments}\ntry:\n    cliplens.cli.main()\nexcept SystemExit:\n    pass\n"
    checked = LIGHT.format(module="cliplens.cli").replace("heavy =", f"{run}heavy =", 1)
    done = subprocess.run([sys.executable, "-c", checked], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Expected a column of captions" in done.stderr
    assert "'words'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_every_command_explains_itself() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in ("demo", "run", "train", "score", "report", "models"):
        assert command in shown.output
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_run_has_the_options_researchers_expect() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    expected = (
        "hook tower architecture d-sae k seed device dtype samples resume wandb-project image-root caption-column"
    )
    assert [o for o in expected.split() if f"--{o}" not in shown] == []


def test_errors_are_one_sentence_and_exit_code_two(tmp_path: Path) -> None:
    done = cliplens("run", "--pairs", "world:8", "--model", "worlt", "--out", tmp_path / "run")
    assert done.code == 2
    assert "Expected the name of a model" in done.said
    assert "'world'" in done.said
    assert "Traceback" not in done.said


def test_the_package_runs_as_a_module() -> None:
    shown = subprocess.run([sys.executable, "-m", "cliplens", "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("cliplens ")


def test_every_command_stands_in_the_help_under_its_name() -> None:
    from importlib.metadata import entry_points

    shown = CliRunner().invoke(app, ["--help"]).output
    for name in ("demo", "run", *(e.name for e in entry_points(group="cliplens.commands"))):
        assert f"│ {name} " in shown


def test_warnings_are_printed_before_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cliplens.cli.telling import tell
    from cliplens.files import read_json, write_json
    from support.run_folders import make_run_folder

    folder = make_run_folder(tmp_path / "run", latents=6, pairs=30)
    found = read_json(folder.findings)
    write_json(folder.findings, {**found, "notes": ["A remark [0, 1].", "Warning: all pairs are alike."]})
    tell(folder)
    said = capsys.readouterr().out
    assert said.index("Warning: all pairs are alike.") < said.index("Explained variance") < said.index("[0, 1]")


def test_classes_are_told_with_what_is_significant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cliplens.cli.telling import tell
    from cliplens.files import read_json, write_json
    from support.run_folders import make_run_folder

    folder = make_run_folder(tmp_path / "run", latents=6, pairs=30)
    counts = {"ImgD": 41, "TextD": 42, "CrossD": 43}
    sure = {"ImgD_significant": 31, "TextD_significant": 32, "CrossD_significant": 33, "undecided_significant": 9}
    write_json(folder.summary, {**read_json(folder.summary), **counts, **sure})
    tell(folder)
    said = " ".join(capsys.readouterr().out.split())
    assert "31 ImgD, 32 TextD, 33 CrossD significant, 9 undecided (41 ImgD, 42 TextD, 43 CrossD by fixed cuts)" in said


@pytest.mark.parametrize(
    ("command", "resumes"), [("harvest", True), ("find", False), ("demo", False), ("nonsense", False)]
)
def test_an_interruption_names_resume_only_where_the_command_has_it(
    command: str, resumes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliplens.cli import can_resume
    from cliplens.cli.guard import guarded

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        guarded(interrupted, can_resume=lambda: can_resume(["--debug", command, "run/"]))
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "Interrupted by SIGINT." in said
    assert ("Continue the run with --resume." in said) == resumes


def test_the_range_of_held_out_stands_in_the_help() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "300"}).output
    assert "above 0 and below 1" in shown
    assert "0<=x<=1" not in next(line for line in shown.splitlines() if "--held-out" in line)


def test_after_training_the_sizes_of_dictionary_and_activations_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cliplens.cli.telling import tell
    from cliplens.files import write_json
    from cliplens.runfolder import RunFolder

    folder = RunFolder(tmp_path)
    for of in (folder.sae / "image", folder.activations):
        of.mkdir(parents=True)
    write_json(folder.sae / "cfg.json", {"d_sae": 4096, "d_in": 512})
    (folder.sae / "image" / "sae_weights.safetensors").write_bytes(bytes(16_800_000))
    held = {"rows": 1200, "sites": ["a", "b"], "bytes": 6_200, "bad": 0, "truncated": 0}
    write_json(folder.activations / "manifest.json", held)
    tell(folder)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Dictionary {folder.sae}: 4,096 latents of width 512, 17 MB"
    assert said[1] == f"Activations {folder.activations}: 1,200 pairs at 2 sites, 6.2 kB"
