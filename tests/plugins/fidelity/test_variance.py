"""Explained variance in both forms, against the formula on the whole data."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric


def data(seed: int = 0, gap: float = 3.0, n: int = 500, d: int = 6) -> dict[str, tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(n, d, generator=g, dtype=torch.float64) + shift for shift in (gap, -gap))
    return {
        m: (x, x + 0.3 * torch.randn(n, d, generator=g, dtype=torch.float64))
        for m, x in (("image", image), ("text", text))
    }


def batches(sides: dict[str, tuple[Tensor, Tensor]], size: int = 64) -> list[Batch]:
    n = len(next(iter(sides.values()))[0])
    out = []
    for a in range(0, n, size):
        ids = tuple(str(i) for i in range(a, min(a + size, n)))
        part = {m: (x[a : a + size], y[a : a + size]) for m, (x, y) in sides.items()}
        acts = {m: part[m][0] if m in part else None for m in ("image", "text")}
        back = {m: part[m][1] if m in part else None for m in ("image", "text")}
        codes = {m: SparseCodes.from_dense(part[m][0].relu()) if m in part else None for m in ("image", "text")}
        out.append(Batch(PairedActs(ids, **acts), PairedCodes(ids, **codes), PairedActs(ids, **back)))
    return out


def slow(x: Tensor, y: Tensor) -> float:
    return 1 - float(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


def test_pooled_and_per_modality() -> None:
    sides = data()
    figures = tally(batches(sides), [FidelityMetric()], decoder=None).figures
    assert figures["explained_variance_image"] == pytest.approx(slow(*sides["image"]), abs=1e-12)
    assert figures["explained_variance_text"] == pytest.approx(slow(*sides["text"]), abs=1e-12)
    pooled = tuple(torch.cat([sides[m][n] for m in sides]) for n in (0, 1))
    assert figures["explained_variance"] == pytest.approx(slow(*pooled), abs=1e-12)


def test_cosine_is_the_mean_over_rows() -> None:
    sides = data()
    figures = tally(batches(sides), [FidelityMetric()], decoder=None).figures
    slow_cosines = {
        m: [float(a @ b / (a.norm() * b.norm())) for a, b in zip(x, y, strict=True)] for m, (x, y) in sides.items()
    }
    assert figures["cosine_image"] == pytest.approx(np.mean(slow_cosines["image"]), abs=1e-10)
    assert figures["cosine"] == pytest.approx(np.mean(slow_cosines["image"] + slow_cosines["text"]), abs=1e-10)


def test_the_gap_flatters_the_pooled_figure_only() -> None:
    near, far = (tally(batches(data(gap=gap)), [FidelityMetric()], decoder=None).figures for gap in (0.0, 10.0))
    assert far["explained_variance"] > near["explained_variance"] + 0.05
    assert far["explained_variance_image"] == pytest.approx(near["explained_variance_image"], abs=1e-10)


def test_legacy_is_the_mean_of_ratios_about_batch_means() -> None:
    sides = {"image": data()["image"]}
    x, y = sides["image"]
    ratios = [
        1 - ((x[a : a + 64] - y[a : a + 64]) ** 2).sum(1) / ((x[a : a + 64] - x[a : a + 64].mean(0)) ** 2).sum(1)
        for a in range(0, len(x), 64)
    ]
    figures = tally(batches(sides), [FidelityMetric()], decoder=None).figures
    assert figures["explained_variance_legacy"] == pytest.approx(float(torch.cat(ratios).mean()), abs=1e-12)


def test_a_perfect_and_an_empty_reconstruction() -> None:
    x = data()["image"][0]
    perfect = tally(batches({"image": (x, x)}), [FidelityMetric()], decoder=None).figures
    assert perfect["explained_variance"] == 1.0
    assert perfect["cosine"] == pytest.approx(1.0)
    mean = tally(batches({"image": (x, x.mean(0).expand_as(x))}), [FidelityMetric()], decoder=None).figures
    assert mean["explained_variance"] == pytest.approx(0.0, abs=1e-12)


def test_l0_density_and_dead() -> None:
    sides = data()
    found = tally(batches(sides), [FidelityMetric()], decoder=None)
    fires = torch.cat([sides[m][0] > 0 for m in sides]).double()
    assert found.figures["l0"] == pytest.approx(float(fires.sum(1).mean()))
    np.testing.assert_allclose(found.table["density"], fires.mean(0).numpy(), atol=1e-15)
    assert found.figures["dead_fraction"] == float((fires.sum(0) == 0).double().mean())


def test_data_that_do_not_vary_have_no_explained_variance() -> None:
    x = torch.ones(10, 3, dtype=torch.float64)
    assert np.isnan(tally(batches({"image": (x, x)}), [FidelityMetric()], decoder=None).figures["explained_variance"])


def test_codes_without_activations_are_named() -> None:
    batch = batches({"image": data()["image"]})[0]
    bare = Batch(PairedActs(batch.ids, None, None), batch.codes, PairedActs(batch.ids, None, None))
    (failed,) = tally([bare], [FidelityMetric()], decoder=None).failed
    assert "Fix: pass batches with acts and reconstruction to tally" in failed["error"]


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_figures_do_not_depend_on_the_size_of_activations(size: float) -> None:
    (x, y), constant = data(n=80)["image"], torch.full((10, 3), size, dtype=torch.float64)
    figures = tally(batches({"image": (size * x, size * y)}), [FidelityMetric()], decoder=None).figures
    assert figures["explained_variance"] == pytest.approx(slow(x, y), abs=1e-9)
    still = tally(batches({"image": (constant, constant)}), [FidelityMetric()], decoder=None).figures
    assert np.isnan(still["explained_variance"])
    assert np.isnan(still["explained_variance_legacy"])


def test_silent_latents_are_counted_over_both_modalities() -> None:
    """Latent 0 fires on images, 1 on captions, 2 and 3 never; in one modality three are silent."""
    image, text = torch.zeros(5, 4), torch.zeros(5, 4)
    image[:, 0], text[1, 1] = 1.0, 2.0
    ids = tuple("abcde")
    acts = PairedActs(ids, image.double(), text.double())
    codes = PairedCodes(ids, SparseCodes.from_dense(image), SparseCodes.from_dense(text))
    found = tally([Batch(acts, codes, acts)], [FidelityMetric()], decoder=None)
    assert found.figures["dead_fraction"] == 0.5
    rows = {row["data"]: row["dead_fraction"] for row in found.tables["Fidelity of the dictionary"]}
    assert rows == {"all": 0.5, "image": 0.75, "text": 0.75}
    assert (found.figures["l0"], found.figures["l0_image"], found.figures["l0_text"]) == (0.6, 1.0, 0.2)
    assert found.table["density"].tolist() == [0.5, 0.1, 0.0, 0.0]


def test_a_batch_of_zeros_has_no_part_in_the_legacy_figure() -> None:
    sides, zeros = data(n=64), torch.zeros(64, 6, dtype=torch.float64)
    alone = tally(batches(sides), [FidelityMetric()], decoder=None).figures
    (still,) = batches(dict.fromkeys(sides, (zeros, zeros)))
    both = tally([still, *batches(sides)], [FidelityMetric()], decoder=None).figures
    assert both["explained_variance_legacy"] == pytest.approx(alone["explained_variance_legacy"], abs=1e-12)
