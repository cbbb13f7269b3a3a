"""Edges of the histogram, of matching dictionaries and of the fraction recovered."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cliplens.analysis import matched, mixtures
from cliplens.errors import MismatchError
from cliplens.exemplars import save_exemplars
from cliplens.records import Batch, Exemplars, Pair, PairedActs, PairedCodes, SparseCodes
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.fidelity.command import _tell, fidelity_tables
from cliplens_plugins.fidelity.downstream import recovered
from cliplens_plugins.fidelity.histogram import BINS, EDGES, HistogramMetric
from cliplens_plugins.fidelity.neighbours import neighbours
from cliplens_plugins.fidelity.stability import contained, duplicates, stability
from cliplens_plugins.fidelity.variance import explained_variance, explained_variance_legacy


def batch(image: torch.Tensor, text: torch.Tensor | None = None) -> Batch:
    ids = tuple(f"p{i}" for i in range(len(image)))
    codes = PairedCodes(ids, SparseCodes.from_dense(image), None if text is None else SparseCodes.from_dense(text))
    acts = PairedActs(ids, torch.zeros(len(ids), 1), None if text is None else torch.zeros(len(ids), 1))
    return Batch(acts, codes, acts)


def test_every_edge_of_the_histogram_belongs_to_the_bin_above() -> None:
    assert (len(EDGES), EDGES[0], EDGES[2], EDGES[-1]) == (BINS + 1, 2.0**-12, 2.0**-11, 2.0**8)
    for bin_, value in [(n, float(EDGES[n]) * 1.0001) for n in range(BINS)] + [(0, 1e-9), (BINS - 1, 1e9), (24, 1.0)]:
        metric = HistogramMetric()
        metric.update(batch(torch.tensor([[0.0, value], [0.0, -value]], dtype=torch.float64)))
        found = metric.findings(None).columns["hist_image"]
        assert found.shape == (2, BINS)
        assert np.flatnonzero(found[1]).tolist() == [bin_]
        assert found[1, bin_] == 2
        assert not found[0].any()


@pytest.mark.parametrize(("own", "expected"), [(1.0, 1.0), (1.5, 0.75), (3.0, 0.0), (4.0, -0.5)])
def test_the_fraction_recovered_has_the_model_and_the_ablation_as_its_ends(own: float, expected: float) -> None:
    figures = {
        "model": {"f": 1.0},
        "dictionary": {"f": own},
        "mean ablation": {"f": 3.0},
        "zero ablation": {"f": 5.0},
    }
    assert recovered(figures, "f") == pytest.approx(expected)
    assert recovered(figures, "f", "zero ablation") == pytest.approx((own - 5) / -4)
    assert np.isnan(recovered({**figures, "mean ablation": {"f": 1.0}}, "f"))


def test_left_over_latents_have_no_partner_and_do_not_count() -> None:
    rows = torch.eye(3, dtype=torch.float64)
    found = matched(rows, 2 * rows[[1]])
    assert found.partner.tolist() == [-1, 0, -1]
    np.testing.assert_array_equal(found.cosine, [np.nan, 1.0, np.nan])
    every, a, b = stability(rows, rows[[1]], ["a", "b", "a"])
    assert (every["class"], every["latents"], every["mean_cosine"], every["found_again"]) == ("all", 3, 1.0, 1.0)
    assert (a["class"], a["latents"], b["latents"], b["mean_cosine"]) == ("a", 2, 1, 1.0)
    assert np.isnan(a["mean_cosine"])
    half = torch.tensor([[0.7, 0.51**0.5, 0.0]], dtype=torch.float64)
    assert stability(rows[:1], half, least=0.7 - 1e-9)[0]["found_again"] == 1.0
    assert stability(rows[:1], half, least=0.71)[0]["found_again"] == 0.0
    assert stability(rows, rows, least=1.0)[0]["found_again"] == 1.0
    with pytest.raises(MismatchError, match="found d_in 3 and 2"):
        stability(rows, rows[:, :2])


def test_mixtures_are_of_a_seed_and_of_unit_rows() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 6, generator=g, dtype=torch.float64)
    assert torch.equal(mixtures(rows, 1), mixtures(rows, 1))
    assert not torch.equal(mixtures(rows, 1), mixtures(rows, 2))
    torch.testing.assert_close(mixtures(rows * torch.tensor([[1.0], [2], [3], [4]]), 1), mixtures(rows, 1))
    drawn = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(mixtures(rows, 1), drawn @ torch.nn.functional.normalize(rows, dim=1))


def test_duplicates_and_narrow_latents_at_their_bounds() -> None:
    top = np.array([[0, 1, 2, -1], [1, 2, 3, -1], [0, 1, 2, 3], [-1, -1, -1, -1], [9, -1, -1, -1]])
    assert duplicates(top) == [(0, 2, 0.75), (1, 2, 0.75), (0, 1, 0.5)]
    assert duplicates(top, 0.75) == [(0, 2, 0.75), (1, 2, 0.75)]
    assert duplicates(top, 0.76) == []
    assert contained(top) == [(0, 2, 1.0), (1, 2, 1.0)]
    assert contained(top, 1.01) == []
    assert duplicates(np.full((2, 3), -1)) == []


def test_neighbours_of_few_latents_are_all_the_others() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 6, generator=g, dtype=torch.float64)
    at, cosine = neighbours(rows)
    assert at.shape == cosine.shape == (4, 3)
    unit = torch.nn.functional.normalize(rows, dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-2).numpy()
    assert (at == np.argsort(-alike, 1)[:, :3]).all()
    np.testing.assert_allclose(cosine, -np.sort(-alike, 1)[:, :3])
    assert neighbours(rows, 2)[0].shape == (4, 2)


def test_nothing_seen_is_said_and_has_no_variance() -> None:
    assert FidelityMetric().findings(None).notes == ("Fidelity was not measured, because there were no codes.",)
    assert np.isnan(explained_variance([]))
    assert np.isnan(explained_variance_legacy([]))


def test_one_latent_has_no_neighbours_and_figures_of_one_modality_bear_its_name() -> None:
    image = torch.tensor([[0.0], [2.0], [3.0]], dtype=torch.float64)
    ids = ("a", "b", "c")
    acts = PairedActs(ids, image.clone(), None)
    codes = PairedCodes(ids, SparseCodes.from_dense(image), None)
    found = tally([Batch(acts, codes, acts)], [FidelityMetric()], decoder=torch.ones(1, 1, dtype=torch.float64))
    assert "neighbours" not in found.table
    assert found.table["density"].tolist() == [pytest.approx(2 / 3)]
    figures = found.figures
    assert (figures["explained_variance"], figures["explained_variance_image"]) == (1.0, 1.0)
    assert (figures["l0"], figures["l0_image"], figures["dead_fraction"]) == (pytest.approx(2 / 3),) * 2 + (0.0,)
    assert figures["cosine"] == pytest.approx(2 / 3)
    assert not any(name.endswith("_text") or name == "dead_fraction_image" for name in figures)


@pytest.mark.parametrize(
    ("rows", "head", "shown"), [(0, "Title: 0", 0), (3, "Title", 3), (10, "Title", 10), (12, "Title: 12", 10)]
)
def test_a_table_is_counted_where_it_is_empty_or_cut(
    rows: int, head: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell("Title", [{"latent": f"row {n}", "share": n / 7} for n in range(rows)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == head
    assert sum("row " in line for line in lines) == shown
    assert (f"{1 / 7:.3f}" in "".join(lines)) == (rows > 1)


def test_the_cosine_of_rows_too_short_to_tell_is_zero() -> None:
    """Their squared lengths are numbers, but the product of these is not: it underflows to 0."""
    x = torch.tensor([[1e-100, 0.0], [3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    acts = PairedActs(("a", "b", "c"), x, None)
    metric = FidelityMetric()
    metric.update(Batch(acts, PairedCodes(("a", "b", "c"), SparseCodes.from_dense(x), None), acts))
    assert metric.findings(None).figures["cosine"] == pytest.approx(1 / 3)


class Model:
    """Records the arguments of `downstream`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        figures = {"contrastive_loss": (1.0, 2.0, 5.0, 3.0), "image_to_text_r1": (0.8, 0.6, 0.0, 0.2)}
        conditions = ("model", "dictionary", "zero ablation", "mean ablation")
        self.figures = {c: {f: of[n] for f, of in figures.items()} for n, c in enumerate(conditions)}
        monkeypatch.setattr("cliplens_plugins.fidelity.downstream.downstream", self)

    def __call__(self, *given: Any) -> dict[str, dict[str, float]]:
        self.asked.append(given)
        return self.figures


def run_of(folder: Path, decoder: torch.Tensor, *, sides: tuple[str, ...] = ("vision", "text"), **table: Any) -> Any:
    """The part of a run that `fidelity_tables` reads."""
    return SimpleNamespace(
        asked=SimpleNamespace(sides=sides, sites="sites"),
        clip="clip",
        dictionary=SimpleNamespace(decoder=decoder),
        folder=SimpleNamespace(exemplars=folder, path=folder),
        inputs=lambda n: (["image"] * n, "tokens"),
        table=Table(table),
    )


class Table(dict[str, Any]):
    """A table by its columns."""

    @property
    def columns(self) -> dict[str, Any]:
        return self


def exemplars(modality: Any, at: list[list[int]]) -> Exemplars:
    top = np.array(at)
    ids = [f"p{n}" for n in range(int(top.max()) + 1)]
    pairs = tuple(Pair(i, None, i) for i in ids)
    return Exemplars(modality, pairs, top, np.where(top >= 0, 1.0, 0.0))


def test_the_tables_of_a_run_hold_what_the_functions_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(monkeypatch)
    save_exemplars(
        tmp_path,
        exemplars("image", [[0, 1, 2], [0, 1, 3], [0, 1, -1]]),
        exemplars("text", [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
    )
    run = run_of(tmp_path, torch.eye(3, 4))
    tables = fidelity_tables(run, None, 7)
    assert [len(given[1]) for given in model.asked] == [7]
    assert model.asked[0][0] == "clip"
    assert model.asked[0][2:] == ("tokens", run.dictionary, "sites")
    assert list(tables) == [
        "Downstream, 7 pairs",
        "Same top images",
        "Top images contained",
        "Same top captions",
        "Top captions contained",
    ]
    loss, recall = tables["Downstream, 7 pairs"]
    assert loss == {
        "figure": "contrastive_loss",
        "model": 1.0,
        "dictionary": 2.0,
        "zero ablation": 5.0,
        "mean ablation": 3.0,
        "recovered from zero ablation": 0.75,
        "recovered from mean ablation": 0.5,
    }
    assert recall["recovered from zero ablation"] == pytest.approx(0.75)
    same = [(row["latent"], row["other"], row["jaccard"]) for row in tables["Same top images"]]
    assert same == [(0, 2, pytest.approx(2 / 3)), (1, 2, pytest.approx(2 / 3)), (0, 1, 0.5)]
    inside = [(row["narrow"], row["broad"], row["share"]) for row in tables["Top images contained"]]
    assert inside == [(2, 0, 1.0), (2, 1, 1.0)]
    assert tables["Same top captions"] == tables["Top captions contained"] == []


@pytest.mark.parametrize("classified", [True, False])
def test_the_living_latents_are_looked_for_in_the_other_run(classified: bool, tmp_path: Path) -> None:
    save_exemplars(tmp_path, None, exemplars("text", [[0], [1], [2], [3]]))
    table: dict[str, Any] = {"alive": np.array([1.0, 0.0, 1.0, 1.0])}
    if classified:
        table["modality"] = np.array(["ImgD", "dead", "TextD", "ImgD"])
    run = run_of(tmp_path, torch.eye(4), sides=("text",), **table)
    other = run_of(tmp_path / "other", torch.eye(4)[[2, 0]])
    tables = fidelity_tables(run, other, 3)
    assert list(tables) == ["Same top captions", "Top captions contained", f"Found again in {tmp_path / 'other'}"]
    rows = tables[f"Found again in {tmp_path / 'other'}"]
    found = [(row["class"], row["latents"], row["mean_cosine"]) for row in rows]
    assert found == [("all", 3, 1.0)] + [("ImgD", 2, 1.0), ("TextD", 1, 1.0)] * classified


def test_no_latents_have_no_duplicates() -> None:
    none = np.zeros((0, 3), np.int64)
    assert duplicates(none) == contained(none) == []
    assert duplicates(np.zeros((2, 0), np.int64)) == []


@pytest.mark.parametrize("known", [True, False])
def test_a_metric_that_fails_is_named_with_the_distribution_of_its_package(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"cliplens_plugins": ["cliplens", "another"]} if known else {}
    monkeypatch.setattr("cliplens.tally.one_pass.packages_distributions", lambda: held)
    ids = ("a",)
    bare = PairedActs(ids, None, None)
    given = Batch(bare, PairedCodes(ids, SparseCodes.from_dense(torch.ones(1, 2)), None), bare)
    (failed,) = tally([given], [FidelityMetric()], decoder=None).failed
    assert failed["plugin"] == "fidelity"
    assert failed["distribution"] == ("cliplens" if known else "an unknown distribution")
