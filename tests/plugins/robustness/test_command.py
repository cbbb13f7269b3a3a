"""The command on a run of the world and on a run of a user's own model: record, report, options, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cliplens
from cliplens.cli import app as cliplens_app
from cliplens.errors import InputError
from cliplens.run import OpenedRun, write_report
from cliplens.runfolder import RunFolder
from cliplens.studies import Study, read_studies, write_study
from cliplens.world import FACTORS, ground_truth, world_pairs
from cliplens_plugins.robustness import lab as labs
from cliplens_plugins.robustness import of_run
from cliplens_plugins.robustness.command import app
from cliplens_plugins.robustness.elsewhere import other_subject
from cliplens_plugins.robustness.findings import lead
from cliplens_plugins.robustness.of_run import T_CHECKS, T_CROSS, T_DETECT, T_ELSEWHERE, T_OUTCOMES, T_SHARES, T_WORDS
from support.study_runs import study_run

QUICK = ["--images", "6", "--steps", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return study_run(tmp_path_factory.mktemp("attack"), "world:80")


@pytest.mark.slow
def test_the_command_writes_a_record_and_a_section_of_the_report(run: OpenedRun) -> None:
    done = CliRunner().invoke(app, [str(run.folder.path), "--images", "12", "--steps", "2", "--eps", "2,8"])
    assert done.exit_code == 0, done.output
    study = next(s for s in read_studies(run.folder) if s.name == "attack")
    assert {T_OUTCOMES, T_SHARES, T_CROSS, T_CHECKS, T_DETECT, T_WORDS} <= set(study.tables)
    assert {r["eps"] for r in study.tables[T_OUTCOMES]} == {0.0, 2.0, 8.0}
    assert {r["dictionary"] for r in study.tables[T_SHARES]} == {"own", "never trained"}
    assert any("other seed" in note for note in study.notes)  # a given dictionary cannot be trained again
    assert study.findings
    assert len(study.pictures) == 3
    steps = json.loads((run.folder.path / "steps.json").read_text())
    assert "attack" in json.dumps(steps)
    page = run.folder.report.read_text()
    assert 'id="study-attack"' in page
    assert page.count('<img class="strip" src="data:image/png') >= 3
    write_study(run.folder, Study("zz", "A study from elsewhere", pictures={"odd": "https://elsewhere/picture.png"}))
    assert "elsewhere/picture.png" not in write_report(run.folder).read_text()
    (run.folder.studies / "zz.json").unlink()


@pytest.mark.slow
def test_detectors_meet_pictures_of_another_data_set(run: OpenedRun) -> None:
    """Nothing is fitted there: the thresholds and the detectors are those of the run's pictures."""
    options = ["--images", "8", "--steps", "2", "--eps", "4", "--attacks", "margin", "--elsewhere", "world:30:9"]
    done = CliRunner().invoke(app, [str(run.folder.path), *options])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    study = next(s for s in read_studies(run.folder) if s.name == "attack")
    rows = study.tables[T_ELSEWHERE]
    assert {r["pictures"] for r in rows} == {"world:30:9"}
    assert {r["attack"] for r in rows} == {"zero-shot margin", "feature"}
    assert {r["detector"] for r in rows} == {r["detector"] for r in study.tables[T_DETECT]}
    assert any("world:30:9" in finding for finding in study.findings)
    by_attack = {r["detector"]: r["false at 5%"] for r in rows if r["attack"] == "feature"}
    assert by_attack == {
        r["detector"]: r["false at 5%"] for r in rows if r["attack"] != "feature"
    }  # same clean pictures


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: pictures and captions on disk, a run that trained its own dictionary, and other pictures."""
    folder = tmp_path_factory.mktemp("trained")
    pairs = world_pairs(700)
    shapes = ground_truth(pairs.ids).factors["shape"]
    lines = ["image,caption,kind"]
    for n in range(len(pairs)):
        pairs[n].image.save(folder / f"{n}.png")
        lines.append(f"{n}.png,{pairs[n].caption},{FACTORS['shape'].values[shapes[n]]}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for n in range(20):  # of another size, some with transparency
        other = Image.fromarray(rng.integers(0, 255, (40, 60, 4 if n % 5 == 0 else 3), dtype=np.uint8))
        other.save(folder / f"other{n}.png")
        lines.append(f"other{n}.png,noise number {n}")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "other.csv").write_text("\n".join([*lines, "broken.png,a broken one", "gone.png,a missing one"]) + "\n")
    (folder / "captions.csv").write_text("caption\na red ring\na blue ring\n")
    (folder / "broken.csv").write_text("image,caption\nbroken.png,one\ngone.png,two\n")
    small = ["--d-sae", "64", "--k", "6", "--samples", "20000", "--batch-size", "256", "--namer", "captions"]
    where = ["--model", "world", "--pairs", str(folder / "pairs.csv"), "--out", str(folder / "run")]
    done = CliRunner().invoke(cliplens_app, ["run", *where, *small])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return folder


@pytest.mark.slow
def test_a_trained_run_another_model_another_seed_and_another_data_set(trained: Path) -> None:
    """From the command line to the report: the attack on another model, a dictionary trained again, other pictures."""
    folder = trained / "run"
    given = ["--labels", "kind", "--transfer", "world-plain", "--elsewhere", str(trained / "other.csv")]
    done = CliRunner().invoke(
        app, [str(folder), "--images", "8", "--steps", "3", "--eps", "8", "--attacks", "margin", *given]
    )
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    study = next(s for s in read_studies(RunFolder.open(folder)) if s.name == "attack")
    assert {r["dictionary"] for r in study.tables[T_SHARES]} == {"own", "never trained", "other seed"}
    clean, attacked = study.tables[T_OUTCOMES][0], study.tables[T_OUTCOMES][1]
    assert lead(attacked["zero-shot"]) < lead(clean["zero-shot"]), "the attack works on the model it is made on"
    lost, lost_by_other = (lead(clean[name]) - lead(attacked[name]) for name in ("zero-shot", "zero-shot, other model"))
    assert lost >= lost_by_other, "and does not work better on another one"
    assert any("another model" in row["check"] for row in study.tables[T_CHECKS])
    rows = study.tables[T_ELSEWHERE]
    assert {r["pictures"] for r in rows} == {str(trained / "other.csv")}
    assert {r["detector"] for r in rows} == {r["detector"] for r in study.tables[T_DETECT]}
    assert any(r["detector"].endswith("(never trained)") for r in rows)
    assert "other.csv" in RunFolder.open(folder).report.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "says"), [("captions.csv", "a column of images"), ("broken.csv", "0 among 2"), ("none.csv", "none.csv")]
)
def test_another_data_set_is_refused_before_anything_is_attacked(
    trained: Path, other: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_run, "open_lab", lambda run, asked: pytest.fail("the other data set was not opened first"))
    refused = CliRunner().invoke(app, [str(trained / "run"), "--elsewhere", str(trained / other)])
    assert isinstance(refused.exception, InputError), repr(refused.exception)
    assert says in str(refused.exception)


@pytest.mark.slow
def test_without_detectors_it_is_said_that_nothing_was_tried_elsewhere(own: OpenedRun) -> None:
    options = [*QUICK, "--attacks", "margin", "--eps", "4", "--no-reseed", "--elsewhere", "world:12:9"]
    done = CliRunner().invoke(app, [str(own.folder.path), *options])
    assert done.exit_code == 0, done.output
    study = next(s for s in read_studies(own.folder) if s.name == "attack")
    if T_DETECT not in study.tables:
        assert any("Nothing was tried on world:12:9" in note for note in study.notes)
        assert any("--images" in note for note in study.notes)
    assert (T_ELSEWHERE in study.tables) == (T_DETECT in study.tables)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    """A run over pictures and captions on disk, with a column of labels."""
    folder = tmp_path_factory.mktemp("own")
    pairs = world_pairs(60)
    shapes = ground_truth(pairs.ids).factors["shape"]
    lines = ["image,caption,kind"]
    for n in range(60):
        pairs[n].image.save(folder / f"{n}.png")
        lines.append(f"{n}.png,{pairs[n].caption},{FACTORS['shape'].values[shapes[n]] if n % 7 else ''}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return study_run(folder, str(folder / "pairs.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("column", [None, "kind"])
def test_a_run_over_pictures_on_disk_is_attacked(own: OpenedRun, column: str | None) -> None:
    """Without labels each picture's own caption is its class, and nothing is written on pictures."""
    options = [*QUICK, "--attacks", "margin,caption", "--eps", "4", *(["--labels", column] if column else [])]
    done = CliRunner().invoke(app, [str(own.folder.path), *options])
    assert done.exit_code == 0, done.output
    study = next(s for s in read_studies(own.folder) if s.name == "attack")
    assert study.title.endswith(column or "caption")
    assert any("classes are captions" in note for note in study.notes) == (column is None)
    assert (T_WORDS in study.tables) == (column is not None)
    assert study.tables[T_OUTCOMES][0]["R@1 image to text"] is not None


@pytest.mark.slow
def test_a_folder_of_labelled_pictures_is_attacked(run: OpenedRun, tmp_path: Path) -> None:
    for n, pair in enumerate(run.pairs[i] for i in range(20)):
        place = tmp_path / ("red_shape", "other")[n % 2]
        place.mkdir(exist_ok=True)
        pair.image.save(place / f"{n}.png")
    (tmp_path / "other" / "broken.png").write_bytes(b"no picture")
    options = [*QUICK, "--labels", str(tmp_path), "--attacks", "margin,goal", "--eps", "4"]
    done = CliRunner().invoke(app, [str(run.folder.path), *options])
    assert done.exit_code == 0, done.output
    study = next(s for s in read_studies(run.folder) if s.name == "attack")
    rows = study.tables[T_OUTCOMES]
    assert rows[0]["R@1 image to text"] is None  # pictures without captions are not retrieved
    assert T_WORDS in study.tables


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--eps", "much"], "pass --eps 1,2,4,8"),
        (["--attacks", "pgd"], "attack"),
        (["--labels", "light"], "factor of captions"),
        (["--labels", "/nowhere"], "factor of captions"),
        (["--transfer", "no-such-model"], "model"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(run: OpenedRun, options: list[str], says: str) -> None:
    done = CliRunner().invoke(app, [str(run.folder.path), *QUICK, *options])
    assert isinstance(done.exception, InputError)
    assert says in str(done.exception)


def test_another_data_set_is_opened_without_its_broken_pictures(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for n in range(3):
        Image.new("RGB", (40, 60), (n * 80, 0, 0)).save(tmp_path / f"{n}.png")
    lines = ["image,caption", *(f"{n}.png,red number {n}" for n in range(3)), "broken.png,one", "gone.png,two"]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    found = other_subject(cliplens.load("world"), str(tmp_path / "other.csv"))(5)
    assert sorted(found.sentences) == [(f"red number {n}",) for n in range(3)]
    (tmp_path / "other.csv").write_text("\n".join([lines[0], *lines[-2:]]))
    with pytest.raises(InputError, match="0 among 2"):
        other_subject(cliplens.load("world"), str(tmp_path / "other.csv"))


def test_the_number_of_pictures_follows_the_size_of_the_model() -> None:
    assert labs.affordable(cliplens.load("world")) == 64
    assert labs.pictures_for(86_000_000, 50) == 8
