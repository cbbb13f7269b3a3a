"""The main job on embeddings without a model, by the command line and in Python."""

from pathlib import Path

import numpy as np
import pytest

from cliplens.cli.options import each_file
from cliplens.errors import CliplensError, InputError, MismatchError
from cliplens.run import run
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

N, D = 240, 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of ten kinds of pairs, seen in both modalities, and captions that say the kind."""
    folder = tmp_path_factory.mktemp("embeddings")
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 10, N)
    centres = rng.normal(size=(10, D))
    words = ["apple", "bread", "chair", "dance", "eagle", "frost", "grape", "horse", "igloo", "jelly"]
    for name in ("image", "text"):
        np.save(folder / f"{name}.npy", centres[kind] + 0.1 * rng.normal(size=(N, D)))
    (folder / "captions.txt").write_text("\n".join(f"a {words[k]} here" for k in kind) + "\n")
    return folder


def asked(files: Path, **more: object) -> Settings:
    return Settings(
        embeddings=[str(files / "image.npy"), str(files / "text.npy")],
        captions=str(files / "captions.txt"),
        d_sae=16,
        k=2,
        samples=4096,
        batch_size=256,
        held_out=0.5,
        **more,  # type: ignore[arg-type]
    )


def test_a_run_of_embeddings_scores_and_reports(files: Path, tmp_path: Path) -> None:
    folder = run(asked(files), tmp_path / "run")
    summary = (folder.path / "summary.json").read_text()
    assert '"model": "embeddings"' in summary
    assert folder.report.exists()
    assert RunFolder.open(tmp_path / "run").read_settings()["model"]["name"] == "embeddings"
    assert "Embeddings without a model" in folder.findings.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "ViT-B-32"}, "Expected either a model or embeddings"),
        ({"pairs": "x.csv"}, "Expected either --pairs or --captions and --images"),
    ],
)
def test_settings_that_contradict_are_refused(files: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        asked(files, **change)
    with pytest.raises(InputError, match="Expected --pairs, the images and captions"):
        Settings()


def test_more_captions_than_rows_are_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("one\ntwo\n")
    with pytest.raises(MismatchError, match=r"Expected one caption per row of the embeddings \(240\), but found 2"):
        run(
            Settings(
                embeddings=[str(files / "image.npy"), str(files / "text.npy")], captions=str(tmp_path / "captions.txt")
            ),
            tmp_path / "run",
        )


def test_too_few_pairs_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(CliplensError, match=r"Expected at least 4 pairs to train on and at least 4 to score on"):
        run(Settings(pairs="world:3"), tmp_path / "run")
    assert not (tmp_path / "run" / "activations").exists()


def test_the_option_takes_every_file_that_follows() -> None:
    assert each_file(["--embeddings", "a", "b", "--out", "c"]) == [
        "--embeddings",
        "a",
        "--embeddings",
        "b",
        "--out",
        "c",
    ]
    assert each_file(["--embeddings", "a", "--embeddings", "b"]) == ["--embeddings", "a", "--embeddings", "b"]
