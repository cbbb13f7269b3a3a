"""Where every picture and every caption is distinct, counting by picture changes nothing.

The values were stored before pictures became the unit of all statistics. Counts and names are compared bit for bit,
sums over firings to 1e-15, because CPUs differ in the last bit, and what passes through a matrix product to 1e-11. To
store them anew, run `PYTHONPATH=tests python tests/golden/test_distinct_pairs.py`.
"""

from pathlib import Path

import numpy as np
import torch

from cliplens.records import Batch, Pair, PairedActs
from cliplens.tally import TopSamples, tally
from cliplens.tasks import contrastive_loss, retrieval
from cliplens_plugins.fidelity import FidelityMetric, HistogramMetric
from cliplens_plugins.modality import BridgeMetric, GapMetric, InformationMetric, ModalityMetric, causal_effect
from cliplens_plugins.monosemanticity import EmbSimMetric, MonosemanticityMetric
from support.planted import batch_of, planted_codes

STORED = Path(__file__).with_name("distinct_pairs.npz")
EXACT = ("mds", "fire", "alive", "cofiring", "energy", "modality", "density", "hist", "pid", "top", "information")
"""Beginnings of the names of values that are sums over firings."""
CHANGED = ("_significant", "pid_synergy", "pid_shuffled", "separable")
"""Defined anew since."""


def figures() -> dict[str, np.ndarray]:
    """Every column and figure of the streamed metrics, top samples and tasks, on planted pairs."""
    planted = planted_codes(1500, 8, seed=5, dead=1)
    d_sae = planted.image.shape[1]
    draw = torch.Generator().manual_seed(3)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, 12, generator=draw, dtype=torch.float64), dim=1)
    judged = [torch.randn(1500, 6, generator=draw, dtype=torch.float64) for _ in range(2)]
    judged[1] = judged[1] + judged[0]
    holds = torch.rand(1500, generator=draw).numpy() < 0.3
    tops = [TopSamples("image", top=5), TopSamples("text", top=5)]
    batches = []
    for a in range(0, 1500, 256):
        part = slice(a, a + 256)
        ids = planted.ids[part]
        seen = PairedActs(ids, judged[0][part], judged[1][part])
        of = batch_of(ids, planted.image[part], planted.text[part], judged={"judge": seen}, decoder=decoder)
        batches.append(Batch(of.acts, of.codes, of.reconstruction, of.judged, None, {"asked": holds[part]}, of.acts))
        for top in tops:
            top.update(batches[-1])
    kinds = (ModalityMetric, BridgeMetric, GapMetric, InformationMetric)
    kinds += (MonosemanticityMetric, EmbSimMetric, FidelityMetric, HistogramMetric)
    found = tally(batches, [kind() for kind in kinds], decoder=decoder)
    out = dict(found.table.columns)
    gap = found.figures["modality_gap"]
    out |= {f"gap {what} {name}": np.array(value) for what, row in gap.items() for name, value in row.items()}
    out |= {f"figure {name}": np.array(v) for name, v in found.figures.items() if isinstance(v, float | int)}
    for top in tops:
        kept = top.exemplars({i: Pair(i, None, None) for i in planted.ids})
        out[f"top {top.modality} at"], out[f"top {top.modality} values"] = kept.at, kept.values
        out[f"top {top.modality} ids"] = np.array([pair.id for pair in kept.pairs])
    unit = [torch.nn.functional.normalize(side, dim=1) for side in judged]
    out |= {name: np.array(value) for name, value in retrieval(*unit).items()}
    out["loss"], out["loss with a bias"] = (np.array(contrastive_loss(*unit, 8.0, bias)) for bias in (None, -3.0))
    codes = [side[:64, 0].clone() for side in (planted.image, planted.text)]
    effect = causal_effect(*(u[:64] for u in unit), *codes, unit[0][0], scale=8.0, n_random=3)
    out["causal"] = np.array([effect.image, effect.text, effect.both])
    return {name: values.astype(str) if values.dtype == object else values for name, values in out.items()}


def test_distinct_pairs_give_the_stored_values() -> None:
    found = figures()
    with np.load(STORED) as stored:
        assert [name for name in stored.files if name not in found] == []
        for name in stored.files:
            if any(name.startswith(c) or name.endswith(c) for c in CHANGED):
                continue
            if stored[name].dtype.kind in "biuU":
                np.testing.assert_array_equal(found[name], stored[name], err_msg=name)
            elif name.startswith(EXACT):
                np.testing.assert_allclose(found[name], stored[name], rtol=1e-15, err_msg=name)
            else:
                np.testing.assert_allclose(found[name], stored[name], rtol=1e-12, atol=1e-11, err_msg=name)


if __name__ == "__main__":
    np.savez_compressed(STORED, **figures())  # type: ignore[arg-type]
