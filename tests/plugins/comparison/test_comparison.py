"""Figures against slow definitions, the rules for differences, comparability column by column, files and command."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cliplens.arrays import unit_rows
from cliplens.cli import app
from cliplens.errors import InputError
from cliplens.files import read_json
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.run import Settings, SweepFolder, run, sweep
from cliplens.runfolder import RunFolder
from cliplens_plugins.comparison import Comparison, compare, open_subjects
from cliplens_plugins.comparison.compare import assemble, differing
from cliplens_plugins.comparison.figures import FIGURES, Value
from cliplens_plugins.comparison.noise import pseudo_values
from cliplens_plugins.comparison.plots import front, plots
from cliplens_plugins.comparison.replicates import explained_variance, l0, modality_shares, monosemanticity, recovery
from cliplens_plugins.comparison.sample import Samples
from cliplens_plugins.comparison.subjects import configurations
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality.classes import classify_fixed
from cliplens_plugins.modality.mds import mds
from cliplens_plugins.monosemanticity.ms import ms
from support.comparisons import subject

pytestmark = pytest.mark.timeout(600)  # a fixture trains four dictionaries, which takes minutes on a busy machine
SMALL: dict[str, Any] = {"pairs": "world:256", "d_sae": 32, "samples": 2048, "batch_size": 128}
FIGURE = {f.name: f for f in FIGURES}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Return two configurations of two seeds each."""
    grid = {"k": [2, 6], "seed": [0, 1]}
    return sweep(Settings(**SMALL), grid, tmp_path_factory.mktemp("compared") / "sweep")


@pytest.fixture(scope="module")
def found(swept: SweepFolder) -> Comparison:
    return compare(open_subjects([swept.path]), pairs=40, replicates=50)


def drawn(rows: int = 30, latents: int = 6, width: int = 4, seed: int = 0) -> Batch:
    """Return a batch of random sparse codes in both modalities."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"pair{n}" for n in range(rows))
    codes = [torch.tensor(rng.gamma(2, 1, (rows, latents)) * (rng.random((rows, latents)) < 0.4)) for _ in range(2)]
    acts = [torch.tensor(rng.normal(size=(rows, width))) for _ in range(2)]
    near = [unit_rows(torch.tensor(rng.normal(size=(rows, 5)))) for _ in range(2)]
    back = [a + 0.3 * torch.tensor(rng.normal(size=a.shape)) for a in acts]
    paired = PairedCodes(ids, *(SparseCodes.from_dense(c) for c in codes))
    return Batch(PairedActs(ids, *acts), paired, PairedActs(ids, *back), {"judge": PairedActs(ids, *near)})


ONE = np.ones((30, 1))


def test_figures_with_equal_weights_are_those_of_the_metrics() -> None:
    batch = drawn()
    metric = FidelityMetric()
    metric.update(batch)
    figures = metric.findings(None).figures
    assert l0(batch, ONE)[0] == pytest.approx(figures["l0"], abs=1e-12)
    assert explained_variance(batch, ONE)[0] == pytest.approx(figures["explained_variance"], abs=1e-12)
    assert batch.codes.image is not None
    assert batch.codes.text is not None
    image, text = batch.codes.image.dense(), batch.codes.text.dense()
    for modality, codes in (("image", image), ("text", text)):
        expected = ms(codes, batch.judged["judge"].of(modality))  # type: ignore[arg-type]
        mean = float(np.nanmean(np.asarray(expected)))
        assert monosemanticity(batch, modality, ONE)[0] == pytest.approx(mean, abs=1e-12)  # type: ignore[arg-type]
    scores, share = modality_shares(batch, ONE)
    np.testing.assert_allclose(scores[:, 0], np.asarray(mds(image, text)), atol=1e-12)
    classes = classify_fixed(scores[:, 0])
    assert share[0] == pytest.approx(np.isin(classes, ("ImgD", "TextD")).sum() / (classes != "dead").sum())


def test_weights_are_as_repeated_rows() -> None:
    """A row of weight two counts as two rows, but a sample is never paired with itself."""
    batch = drawn()
    weights = np.random.default_rng(1).poisson(1, (30, 1)).astype(float)
    times = np.repeat(np.arange(30), weights[:, 0].astype(int))
    again = taken(batch, times)
    many = np.ones((len(times), 1))
    assert l0(batch, weights)[0] == pytest.approx(l0(again, many)[0], abs=1e-12)
    assert explained_variance(batch, weights)[0] == pytest.approx(explained_variance(again, many)[0], abs=1e-12)
    np.testing.assert_allclose(modality_shares(batch, weights)[0], modality_shares(again, many)[0], atol=1e-12)
    assert batch.codes.image is not None
    codes, near = batch.codes.image.dense()[times].numpy(), batch.judged["judge"].image
    assert near is not None
    expected = [pairwise(codes[:, k], near[times].numpy(), times) for k in range(codes.shape[1])]
    assert monosemanticity(batch, "image", weights)[0] == pytest.approx(np.nanmean(expected), abs=1e-12)


def pairwise(a: np.ndarray, near: np.ndarray, of: np.ndarray) -> float:
    """Return the score pair by pair, without pairs of copies of one sample."""
    if len(set(of[a > 0])) < 2:
        return float("nan")
    pairs = [(i, j) for i in range(len(a)) for j in range(i) if of[i] != of[j]]
    weight = np.array([a[i] * a[j] for i, j in pairs])
    return float((weight * [near[i] @ near[j] for i, j in pairs]).sum() / weight.sum())


def taken(batch: Batch, rows: np.ndarray) -> Batch:
    """Return a batch of some rows, as if they were different pairs."""
    ids = tuple(f"row{n}" for n in range(len(rows)))

    def of(acts: PairedActs) -> PairedActs:
        assert acts.image is not None
        assert acts.text is not None
        return PairedActs(ids, acts.image[rows], acts.text[rows])

    assert batch.codes.image is not None
    assert batch.codes.text is not None
    codes = PairedCodes(ids, *(SparseCodes.from_dense(c.dense()[rows]) for c in (batch.codes.image, batch.codes.text)))
    return Batch(of(batch.acts), codes, of(batch.reconstruction), {"judge": of(batch.judged["judge"])})


def test_latents_that_always_fire_are_shifted() -> None:
    batch = drawn()
    assert batch.codes.image is not None
    codes = batch.codes.image.dense() + 1.0
    moved = replace(batch, codes=replace(batch.codes, image=SparseCodes.from_dense(codes)))
    near = batch.judged["judge"].image
    assert near is not None
    expected = float(np.nanmean(np.asarray(ms(codes, near))))
    assert monosemanticity(moved, "image", ONE)[0] == pytest.approx(expected, abs=1e-9)


def test_recovery_counts_labelled_latents() -> None:
    scores = np.array([[0.1], [0.9], [0.5], [np.nan], [0.5]])
    right, most = recovery(scores, np.array(["TextD", "ImgD", "ImgD", "CrossD", ""]))
    assert right[0] == 0.5
    assert most == 0.5
    assert np.isnan(recovery(scores, np.array([""] * 5))[0]).all()


def test_pairs_of_seeds_are_not_independent() -> None:
    """The pseudo-values are those of leaving out one seed after the other."""
    pairs = np.random.default_rng(0).normal(size=(5, 5))
    pairs = pairs + pairs.T
    whole = [np.mean(np.delete(pairs[i], i)) for i in range(5)]
    left = []
    for i in range(5):
        rest = np.delete(np.delete(pairs, i, 0), i, 1)
        left.append(5 * np.mean(whole) - 4 * rest[np.triu_indices(4, 1)].mean())
    np.testing.assert_allclose(pseudo_values(whole), left, rtol=1e-12)


def test_two_seeds_have_one_stability_and_no_noise(found: Comparison) -> None:
    (stability,) = [d for d in found.differences if d.figure == "stability"]
    assert stability.verdict == "no seeds"
    assert not any(note.startswith("No seeds") for note in found.notes), "there are seeds, but too few"
    assert any("test of a difference, need three" in note for note in found.notes)


def test_one_configuration_says_what_was_merged_and_speaks_of_no_difference(swept: SweepFolder) -> None:
    subjects = open_subjects([run.path for run in swept.runs[:2]])
    found = compare(subjects, pairs=40, replicates=20)
    first, second = (s.name for s in subjects)
    assert found.notes == [
        f"Dictionaries that differ by their seed only are one row: {first} is the mean of {first}, {second}. "
        "compare.csv has a row for each dictionary.",
        "There is one configuration, so there is no difference to test.",
    ]


def test_a_sweep_is_compared(found: Comparison) -> None:
    assert list(found.configurations) == ["k 2", "k 6"]
    assert [f.name for f in found.figures] == [f.name for f in FIGURES]
    for held in found.measured.values():
        for figure in ("l0", "explained_variance", "ms_image", "ms_text"):
            m = held[figure]
            assert m.low < m.value < m.high
            assert len(m.of_seeds) == 2
        assert held["stability"].control < 1
        assert not np.isnan(held["explained_variance"].control)
    verdicts = {d.figure: d.verdict for d in found.differences}
    assert set(verdicts) == set(FIGURE)
    assert "not comparable" not in verdicts.values()
    assert found.noise["l0"].freedom == 2
    assert found.pictures == 40
    assert any(note.startswith("Few seeds") for note in found.notes)


def test_explained_variance_is_that_of_the_summary(swept: SweepFolder) -> None:
    """On all held-out pairs, figures equal those of the run."""
    every = compare(open_subjects([swept.path]), pairs=10_000, replicates=20)
    for one in every.configurations["k 2"]:
        for figure in ("explained_variance", "l0"):
            value = every.single[one.name][figure].value
            assert value == pytest.approx(one.summary[figure], abs=1e-9)
        table = one.table
        assert table is not None
        assert every.single[one.name]["ms_image"].value == pytest.approx(np.nanmean(table["ms_image"]), abs=1e-9)


def test_pairs_that_a_dictionary_was_trained_on_are_left_out(swept: SweepFolder, tmp_path: Path) -> None:
    other = run(Settings(**SMALL, k=2, held_out=0.5), tmp_path / "half", until="name")
    subjects = open_subjects([swept.path, other.path])
    sample = Samples(subjects, 10_000, 20).of(subjects[-1])
    assert all(s.holds_out(sample.units.images).all() for s in subjects)


@pytest.mark.parametrize(
    ("part", "apart"),
    [
        ("pairs", set(FIGURE) - {"stability"}),
        ("hook", {"l0", "explained_variance", "stability"}),
        ("model", {"l0", "explained_variance", "names", "stability"}),
        ("judge", {"ms_image", "ms_text", "names"}),
        ("namer", {"names"}),
        ("vocabulary", {"names"}),
        ("centring", {"explained_variance"}),
        ("token", {"l0", "explained_variance", "single_modality_share", "recovery", "stability"}),
    ],
)
def test_what_is_not_comparable_is_said_by_column(part: str, apart: set[str]) -> None:
    a, b = subject("a"), subject("b", **{part: "other"})
    assert {f.name for f in FIGURES if differing(f, a, b)} == apart
    drawn = np.random.default_rng(0).normal(size=20)
    single = {"a": {n: Value(1.0, drawn) for n in FIGURE}, "b": {n: Value(9.0, drawn) for n in FIGURE}}
    found = assemble({"A": [a], "B": [b]}, single, pictures=2)
    verdicts = {d.figure: (d.verdict, d.why) for d in found.differences}
    assert {n for n, (verdict, _) in verdicts.items() if verdict == "not comparable"} == apart
    assert all(why == f"other {part}" for n, (_, why) in verdicts.items() if n in apart)
    assert {verdict for n, (verdict, _) in verdicts.items() if n not in apart} <= {"no seeds"}
    assert any(part in note for note in found.notes)
    drawn_apart = [p for p in plots(found) if p.figure.name in apart]
    assert all(len(p.names) == 1 and p.basis for p in drawn_apart)


def test_two_judges_are_not_compared(swept: SweepFolder, tmp_path: Path) -> None:
    opened = open_subjects([swept.path])[0].run
    ids = list(opened.pairs.ids)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "judge.npz", ids=np.array(ids), image=rng.normal(size=(256, 3)), text=rng.normal(size=(256, 3)))
    settings = Settings(**SMALL, k=2, judge=f"file:{tmp_path / 'judge.npz'}")
    judged = run(settings, tmp_path / "judged", until="name")
    found = compare(open_subjects([swept.path, judged.path]), pairs=40, replicates=20)
    apart = {d.figure for d in found.differences if d.verdict == "not comparable"}
    assert apart == {"ms_image", "ms_text", "names"}


def test_dictionaries_without_a_run(swept: SweepFolder) -> None:
    saes = [swept.runs[0].sae, swept.runs[2].sae]
    with pytest.raises(InputError, match="--on"):
        open_subjects(saes)
    subjects = open_subjects(saes, swept.runs[0].path)
    assert [s.name for s in subjects] == ["sae (1)", "sae (2)"]
    found = compare(subjects, pairs=40, replicates=20)
    assert "names" not in found.measured["sae (1)"]
    assert not np.isnan(found.measured["sae (1)"]["explained_variance"].control)
    assert {d.verdict for d in found.differences} == {"no seeds"}
    assert any("saw these pairs" in note for note in found.notes)


def test_what_cannot_be_compared_is_refused(swept: SweepFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two"):
        open_subjects([swept.runs[0].path])
    with pytest.raises(InputError, match="nothing at"):
        open_subjects([tmp_path / "none"])
    copy = tmp_path / "copy"
    shutil.copytree(swept.runs[0].path, copy)
    activations = swept.path / "activations"
    (tmp_path / "activations").symlink_to(activations)
    for again in ([swept.path, swept.path], [swept.runs[0].path, copy]):
        with pytest.raises(InputError, match="which are the same"):
            open_subjects(again)


def test_noise_of_the_controls_of_a_run_stands_in_for_seeds() -> None:
    a, b = subject("a"), subject("b")
    half = 4.302652729911275 * (4 / 3) ** 0.5
    for one in (a, b):
        one.__dict__["summary"] = {"controls": {"ms_image": {"reseeds": {"low": -half, "high": half}}}}
    drawn = np.random.default_rng(0).normal(size=20) * 1e-3
    single = {"a": {"ms_image": Value(0.0, drawn)}, "b": {"ms_image": Value(50.0, drawn)}}
    found = assemble({"A": [a], "B": [b]}, single, pictures=2)
    assert found.noise["ms_image"].deviation == pytest.approx(1.0)
    assert [d.verdict for d in found.differences] == ["different"]


def test_the_pareto_front() -> None:
    assert front([(1.0, 5.0), (2.0, 4.0), (3.0, 6.0)], better=1) == [0, 2]
    assert front([(1.0, 5.0), (2.0, 4.0), (3.0, 6.0)], better=-1) == [0, 1]


def test_configurations_say_what_varies(swept: SweepFolder) -> None:
    subjects = open_subjects([swept.path])
    assert list(configurations(subjects)) == ["k 2", "k 6"]
    assert list(configurations(subjects[:2])) == [subjects[0].name]


def test_files_and_command(swept: SweepFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--pairs", "40", "--replicates", "20", "--out", str(out)]
    done = CliRunner().invoke(app, ["compare", str(swept.path), *options])
    assert done.exit_code == 0, done.output
    assert "compare.html" in done.output.replace("\n", "")
    rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [row["configuration"] for row in rows] == ["k 2", "k 2", "k 6", "k 6"]
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert float(rows[0]["explained_variance_low"]) < float(rows[0]["explained_variance"])
    held = read_json(out / "compare.json")
    assert held["format"] == "cliplens-comparison-1"
    assert len(held["differences"]) == len(FIGURES)
    assert len(held["dictionaries"]) == 4
    page = (out / "compare.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "default-src 'none'" in page
    missing = CliRunner().invoke(app, ["compare", str(tmp_path / "none")])
    assert isinstance(missing.exception, InputError)


def test_runs_without_scores_have_no_names(swept: SweepFolder, tmp_path: Path) -> None:
    trained = [run(Settings(**SMALL, k=k), tmp_path / str(k), until="train").path for k in (2, 3)]
    found = compare(open_subjects(trained), pairs=40, replicates=20)
    assert "names" not in {f.name for f in found.figures}
    assert json.dumps(sorted(found.measured)) == '["k 2", "k 3"]'


def values_of(found: Comparison, names: Sequence[str]) -> list[float]:
    """Return the figure of each configuration."""
    return [found.measured[name]["l0"].value for name in names]


def test_l0_grows_with_k(found: Comparison) -> None:
    low, high = values_of(found, ["k 2", "k 6"])
    assert low < high


def test_an_altered_table_is_refused(swept: SweepFolder, tmp_path: Path) -> None:
    from cliplens.errors import DamagedError

    folder = RunFolder(swept.runs[1].path)
    whole = folder.latents.read_bytes()
    folder.latents.write_bytes(whole + b" ")
    try:
        with pytest.raises(DamagedError, match="latents"):
            open_subjects([swept.path])
    finally:
        folder.latents.write_bytes(whole)
