"""docs/metrics.md explains every column the metrics give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cliplens.contracts import Metric
from cliplens.records import PairedActs
from cliplens.registry import made
from cliplens.tally import tally
from cliplens_plugins.modality.columns import TRUTH
from support.planted import batches_of, planted_codes


def test_every_column_is_explained() -> None:
    words = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    batches = []
    for batch in batches_of(planted_codes(300, 5)):
        rows = torch.randn(len(batch.ids), 4, generator=torch.Generator().manual_seed(0))
        judged = {"judge": PairedActs(batch.ids, rows, rows)}
        targets = {"target": np.arange(len(batch.ids)) % 3 == 0}
        batches.append(replace(batch, judged=judged, targets=targets, raw=judged["judge"]))
    metrics = [metric for plugin, metric in made("metrics", Metric) if plugin.name != "ground_truth"]
    found = tally(batches, metrics, decoder=torch.randn(15, 4))
    assert found.failed == ()
    assert found.notes == ()
    columns = [*found.table, *(column.name for column in TRUTH)]
    families = {"embsim_text": "`_text`", "embsim_cross": "`_cross`"}
    families |= {f"winrate_{what}": "`winrate_*`" for what in ("image", "text", "cross")}
    missing = [c for c in columns if families.get(c, f"`{c}`") not in words]
    assert not missing
