"""docs/metrics.md explains every column the metrics give."""

from pathlib import Path

import torch

from cliplens.records import Batch, PairedActs
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric, HistogramMetric
from cliplens_plugins.modality import BridgeMetric, ModalityMetric
from cliplens_plugins.modality.columns import TRUTH
from cliplens_plugins.monosemanticity import EmbSimMetric, MonosemanticityMetric
from support.planted import batches_of, planted_codes


def test_every_column_is_explained() -> None:
    words = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    batches = []
    for batch in batches_of(planted_codes(300, 5)):
        rows = torch.randn(len(batch.ids), 4, generator=torch.Generator().manual_seed(0))
        judged = {"judge": PairedActs(batch.ids, rows, rows)}
        batches.append(Batch(batch.acts, batch.codes, batch.reconstruction, judged))
    metrics = [ModalityMetric(), MonosemanticityMetric(), EmbSimMetric(), FidelityMetric(), HistogramMetric()]
    metrics += [BridgeMetric()]
    found = tally(batches, metrics, decoder=torch.randn(15, 5))
    assert found.failed == ()
    columns = [*found.table, *(column.name for column in TRUTH)]
    families = {"embsim_text": "`_text`", "embsim_cross": "`_cross`"}
    families |= {f"winrate_{what}": "`winrate_*`" for what in ("image", "text", "cross")}
    missing = [c for c in columns if families.get(c, f"`{c}`") not in words]
    assert not missing
