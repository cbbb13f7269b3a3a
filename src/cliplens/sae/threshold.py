"""Set the threshold of a trained BatchTopK dictionary to the value at which k latents fire per row, on average.

In training, BatchTopK keeps the k x batch largest values of a batch. The saved JumpReLU needs a fixed threshold, for
which SAELens takes a running mean of the least value that fired. That value rises while a dictionary learns, so the
mean lags behind, and more latents fire than were asked for. `train` measures the exact value on training rows when the
weights are final.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

ROWS = 16_384
"""Rows on which the threshold is measured, at most; so many give L0 within a percent."""
_KEY = "threshold_calibration"
_ENTRIES = 2**24
"""Largest number of values that are in memory at a time, apart from the largest of all."""


@dataclass(frozen=True)
class Calibration:
    """How the threshold of a dictionary was set."""

    rows: int
    """Samples of training rows on which it was measured. Few rows are read several times."""
    threshold: float
    """The threshold: above it lie k values per row, on average."""
    l0: float
    """Latents that fire per row with it: k, or fewer where fewer values are positive or many rows are equal."""
    running_threshold: float
    """SAELens' running mean, which it replaces."""
    running_l0: float
    """Latents that fire per row with the running mean."""

    def __str__(self) -> str:
        return (
            f"the threshold was set on {self.rows:,} samples of training rows so that {self.l0:.3g} latents fire per "
            f"row; with the running mean of training it would be {self.running_l0:.3g}"
        )


@torch.no_grad()
def calibrate(sae: Any, batches: Iterable[Float[Tensor, "batch d_in"]]) -> Calibration | None:
    """Set the threshold of a trained BatchTopK dictionary in place, and record it in its metadata.

    Args:
        sae: the trained dictionary; one of another architecture, without such a threshold, is left as it is.
        batches: training rows.

    Returns:
        What was measured; None for another architecture, without rows, or if values are nan.
    """
    rows = list(batches) if isinstance(sae, BatchTopKTrainingSAE) else []
    wanted = int(sae.cfg.k * sum(map(len, rows))) if rows else 0
    if not wanted:
        return None
    running, fired = float(sae.topk_threshold), 0
    largest = torch.empty(0, device=sae.device, dtype=sae.dtype)
    least = torch.zeros((), device=sae.device, dtype=sae.dtype)  # codes are positive
    part_rows = max(1, _ENTRIES // int(sae.cfg.d_sae))
    for batch in (part for whole in rows for part in whole.split(part_rows)):
        values = sae.encode_with_hidden_pre(batch.to(sae.device))[1].flatten()
        if values.isnan().any():
            return None
        fired += int((values > running).sum())
        largest = torch.cat([largest, values[values > least]])
        if len(largest) > wanted:
            largest = largest.topk(wanted + 1).values
            least = largest[-1]
    between = float(largest[-2:].double().mean()) if len(largest) > wanted else 0.0
    sae.topk_threshold.fill_(between)
    count = sum(map(len, rows))
    found = Calibration(count, between, int((largest > between).sum()) / count, running, fired / count)
    sae.cfg.metadata[_KEY] = asdict(found)
    return found


def calibration_of(metadata: SAEMetadata) -> Calibration | None:
    """Return how the threshold of a dictionary was set; None where none was measured, as by an earlier version."""
    found = metadata[_KEY]
    if not isinstance(found, dict):
        return None
    try:
        return Calibration(**{name: found[name] for name in Calibration.__dataclass_fields__})
    except KeyError:
        return None
