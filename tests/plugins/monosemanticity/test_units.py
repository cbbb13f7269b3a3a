"""Pictures and texts count once in MS, MMS, EmbSim and WinRate; chance is 0 and one half however often they recur."""

import numpy as np
import pytest
import torch

from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes, Units
from cliplens_plugins.monosemanticity import EmbSimMetric, MonosemanticityMetric, ms


def repeated(pictures: int, captions: int, k: int = 6, seed: int = 0) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Pictures with several captions each, random codes, and a judge that knows nothing."""
    draw = torch.Generator().manual_seed(seed)
    shown = torch.nn.functional.normalize(torch.randn(pictures, 8, generator=draw, dtype=torch.float64), dim=1)
    fires = torch.rand(pictures, k, generator=draw) * (torch.rand(pictures, k, generator=draw) < 0.7)
    said = torch.nn.functional.normalize(torch.randn(pictures * captions, 8, generator=draw).double(), dim=1)
    on_text = torch.rand(pictures * captions, k, generator=draw) * 1.0
    ids = tuple(f"{p}.png" + (f"#{n}" if n else "") for p in range(pictures) for n in range(captions))
    image, judged = fires.repeat_interleave(captions, 0), shown.repeat_interleave(captions, 0)
    acts = PairedActs(ids, image, on_text)
    codes = PairedCodes(ids, SparseCodes.from_dense(image), SparseCodes.from_dense(on_text))
    return Batch(acts, codes, acts, {"judge": PairedActs(ids, judged, said)}), fires, shown


@pytest.mark.parametrize("captions", [1, 2, 5])
def test_ms_counts_each_picture_once(captions: int) -> None:
    batch, fires, shown = repeated(60, captions)
    metric = MonosemanticityMetric()
    metric.update(batch)
    np.testing.assert_allclose(metric.findings(None).columns["ms_image"], ms(fires, shown).numpy(), atol=1e-6)


@pytest.mark.parametrize("captions", [1, 3])
def test_mms_leaves_out_every_caption_of_a_picture(captions: int) -> None:
    batch, fires, shown = repeated(30, captions)
    metric = MonosemanticityMetric()
    metric.update(batch)
    text, said = batch.codes.of("text"), batch.judged["judge"].text
    assert text is not None
    assert said is not None
    picture = torch.arange(30).repeat_interleave(captions)
    a, b = fires.double(), text.dense().double()
    other = (torch.arange(30)[:, None] != picture).double()
    alike = (shown @ said.T) * other
    slow = torch.einsum("ik,ij,jk->k", a, alike, b) / torch.einsum("ik,ij,jk->k", a, other, b)
    np.testing.assert_allclose(metric.findings(None).columns["mms"], slow.numpy(), atol=1e-6)


@pytest.mark.parametrize("captions", [1, 5, 64])
def test_a_judge_that_knows_nothing_finds_chance(captions: int) -> None:
    batch, _, _ = repeated(300, captions, k=40)
    metric = EmbSimMetric()
    metric.update(batch)
    columns = metric.findings(None).columns
    assert abs(np.nanmean(columns["embsim_image"])) < 0.03
    assert abs(np.nanmean(columns["winrate_image"]) - 0.5) < 0.03


def test_equal_texts_count_once() -> None:
    batch, _, _ = repeated(80, 1, k=3)
    texts = [f"caption {n % 10}" for n in range(80)]
    units = Units.from_columns(batch.ids, batch.ids, texts)
    codes = PairedCodes(batch.ids, batch.codes.image, batch.codes.text, units)
    metric = EmbSimMetric((5,))
    metric.update(Batch(batch.acts, codes, batch.reconstruction, batch.judged))
    seen = metric.parts()["seen"]
    top = seen["judge/text"].samples  # type: ignore[index]
    kept = [[texts[batch.ids.index(top.ids[p])] for p in row if p >= 0] for row in top.table()]
    assert [len(set(row)) for row in kept] == [len(row) for row in kept]
    assert len(seen["judge/text"].pool.rows) == 10  # type: ignore[index]


def test_a_pair_that_comes_twice_counts_once_in_mms() -> None:
    batch, _, _ = repeated(12, 1, k=4)
    once, twice = MonosemanticityMetric(), MonosemanticityMetric()
    once.update(batch)
    rows = torch.tensor([*range(12), 3, 5])
    ids = (*batch.ids, "again", "and again")
    names = [batch.ids[row] for row in rows.tolist()]

    def rowed(acts: PairedActs) -> PairedActs:
        return PairedActs(ids, *(None if side is None else side[rows] for side in (acts.image, acts.text)))

    sides = [SparseCodes.from_dense(side.dense()[rows]) for side in (batch.codes.image, batch.codes.text) if side]
    codes = PairedCodes(ids, *sides, Units.from_columns(ids, names, names))
    judged = {judge: rowed(seen) for judge, seen in batch.judged.items()}
    twice.update(Batch(rowed(batch.acts), codes, rowed(batch.reconstruction), judged))
    expected, found = once.findings(None).columns, twice.findings(None).columns
    for name in ("ms_image", "ms_text", "mms"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12)
