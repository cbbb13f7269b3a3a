"""The main job on embeddings without a model, by the command line and in Python."""

from pathlib import Path

import numpy as np
import pytest

from cliplens.cli.options import each_file
from cliplens.errors import CliplensError, InputError, MismatchError
from cliplens.pairs import Pairs
from cliplens.run import OpenedRun, run
from cliplens.run.embeddings import embeddings_of, pairs_of_embeddings
from cliplens.run.targets import label_of
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
    with pytest.raises(CliplensError, match=r"Expected at least 4 pairs to train on and at least 4 pairs to score on"):
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


@pytest.mark.parametrize(
    "change",
    [{"token": "patches"}, {"pretrained": "x"}, {"dtype": "float16"}, {"compile": True}, {"autocast": "float16"}],
)
def test_options_of_a_model_are_refused(files: Path, change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Expected options that a run of embeddings reads, but found --"):
        asked(files, **change)


def test_captions_and_images_need_embeddings() -> None:
    for name in ("captions", "images"):
        with pytest.raises(InputError, match=f"Expected --{name} beside --embeddings"):
            Settings(pairs="world:50", **{name: "x"})  # type: ignore[arg-type]


def read(files: Path, **changed: object) -> Pairs:
    settings = Settings(embeddings=[str(files / "image.npy"), str(files / "text.npy")], **changed)  # type: ignore[arg-type]
    return pairs_of_embeddings(settings, embeddings_of(settings))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_of_captions_are_read_as_they_were_written(
    files: Path, tmp_path: Path, encoding: str, newline: str
) -> None:
    lines = [f"Käfer {n}" for n in range(N)]
    (tmp_path / "c.txt").write_bytes((newline.join(lines) + newline).encode(encoding))
    assert read(files, captions=str(tmp_path / "c.txt")).captions == lines


def test_bytes_that_are_no_text_are_no_caption(files: Path, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"caf\xe9\n" + b"x\n" * (N - 1))
    pairs = read(files, captions=str(tmp_path / "c.txt"))
    assert (pairs[0].caption, pairs[0].caption_problem) == (None, "a caption that is not valid Unicode text")


def test_the_table_of_captions_is_read_as_any_table(files: Path, tmp_path: Path) -> None:
    rows = [f"{n}~alt {n}~{'dog' if n % 3 else 'cat'}" for n in range(N)]
    (tmp_path / "c.csv").write_text("caption~alt~kind\n" + "\n".join(rows) + "\n")
    options = {"captions": str(tmp_path / "c.csv"), "delimiter": "~"}
    assert read(files, **options, caption_column="alt").captions[:2] == ["alt 0", "alt 1"]
    with pytest.raises(InputError, match="Expected a column 'nope'"):
        read(files, **options, caption_column="nope")
    both = [str(files / "image.npy"), str(files / "text.npy")]
    label = label_of(Settings(embeddings=both, **options, target="kind=cat"))  # type: ignore[arg-type]
    assert label([f"row-{n:06d}" for n in range(4)]).tolist() == [True, False, False, True]
    with pytest.raises(InputError, match="a table of captions with a column 'kind'"):
        label_of(asked(files, target="kind=cat"))


def test_images_whose_order_is_not_that_of_their_numbers_are_noted(files: Path, tmp_path: Path) -> None:
    for n in range(N):
        (tmp_path / f"{n}.png").write_bytes(b"")
    assert (
        "0.png, 1.png, 10.png, ... If the rows are in the order 0.png, 1.png, 2.png"
        in read(files, images=str(tmp_path)).notes[0]
    )


def test_a_dictionary_of_another_width_is_refused_before_work(files: Path, tmp_path: Path) -> None:
    made = run(asked(files), tmp_path / "run")
    for name in ("image", "text"):
        np.save(tmp_path / f"{name}.npy", np.load(files / f"{name}.npy")[:, :-1])
    narrow = [str(tmp_path / "image.npy"), str(tmp_path / "text.npy")]
    with pytest.raises(MismatchError, match=f"width {D - 1}"):
        run(Settings(embeddings=narrow, sae=str(made.sae)), tmp_path / "score")
    assert not (tmp_path / "score" / "activations").exists()
    names = OpenedRun(made).find(str(next(n for n in OpenedRun(made).table["name"] if n and n != "unnamed")))
    assert names[0].good
    with pytest.raises(InputError, match=r"an \.npz file of embeddings"):
        run(asked(files, judge="file:nope.npz"), tmp_path / "judge")
