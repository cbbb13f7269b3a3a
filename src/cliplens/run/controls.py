"""Compute controls: the figures of a run for an untrained dictionary and for permuted pairs.

`untrained` is a random dictionary of the same shape: random unit decoder rows, their transpose as the encoder, and the
average L0 of the trained one. `permuted` is the trained dictionary, with each image paired with the caption of another
picture. Random dictionaries score nearly as well as trained ones on some figures (arXiv 2602.14111), so every figure is
reported with its controls. Figures and controls use the same pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens import registry
from cliplens.contracts import Metric
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes, Units
from cliplens.sites import MODALITIES
from cliplens.statistics import mean_difference, share_difference
from cliplens.tally import Tally, tally

PAIRS = 2048
"""Number of pairs for the controls: those of the first batches."""
TITLE = "Controls"
_METRICS = ("mds", "ms", "embsim", "fidelity")
_COLUMNS = ("value", "control", "difference", "low", "high")
_VARIANCE = "explained_variance"
NAN = float("nan")
_LARGE = 8192
"""Number of latents from which on EmbSim is left out, because it is slow: it compares samples latent by latent."""
_SEED = 17
_MEANS = {
    "untrained": ("ms_image", "ms_text", "mms", "embsim_image", "embsim_text", "winrate_image", "winrate_text"),
    "permuted": ("cofiring",),
}
SINGLE = "single_modality_share"
"""Share of living latents that are ImgD or TextD by the fixed cuts."""
Controls = Mapping[str, Mapping[str, Mapping[str, Any]]]


def first_batches(batches: Iterator[Batch], kept: list[Batch], pairs: int = PAIRS) -> Iterator[Batch]:
    """Yield the batches, and append the first ones to `kept` for the controls."""
    for batch in batches:
        if sum(len(held.ids) for held in kept) < pairs:
            kept.append(batch)
        yield batch


def controls(batches: Sequence[Batch], decoder: Float[Tensor, "d_sae d_in"]) -> Controls:
    """Return the controls of each figure, by figure and control.

    Each holds `value`, `control`, `difference`, the limits of the interval of the difference, and `beyond`: whether the
    interval excludes 0.
    """
    value = _scored(batches, decoder)
    of_control = {"untrained": _scored([_untrained(b, decoder, _usual_l0(batches)) for b in batches], decoder)}
    pairs = [b for b in batches if b.codes.image is not None and b.codes.text is not None and len(b.ids) > 1]
    shuffled = [_permuted(b) for b in pairs]
    if shuffled:
        of_control["permuted"] = _scored(shuffled, decoder)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, control in of_control.items():
        for column in _MEANS[name]:
            if column in value.table and column in control.table:
                found.setdefault(column, {})[name] = _of_means(value.table[column], control.table[column])
        if "modality" in value.table and "modality" in control.table:
            found.setdefault(SINGLE, {})[name] = _of_shares(value, control)
    own, other = (t.figures.get(_VARIANCE) for t in (value, of_control["untrained"]))
    if own is not None and other is not None:
        row = {"value": own, "control": other, "difference": own - other, "low": NAN, "high": NAN}
        found[_VARIANCE] = {"untrained": {**row, "beyond": own > other}}
    return found


def table_of(found: Controls) -> list[dict[str, Any]]:
    """Return the controls as rows of a table."""
    says = {True: "beyond the control", False: "within the control"}
    return [
        {"figure": figure, "against": control, **{k: row[k] for k in _COLUMNS}, "verdict": says[row["beyond"]]}
        for figure, by_control in found.items()
        for control, row in by_control.items()
    ]


def notes_of(found: Controls) -> list[str]:
    """Return a note that lists the figures that do not differ from a control."""
    rows = [(figure, control, row) for figure, c in found.items() for control, row in c.items()]
    within = [f"{figure} ({control})" for figure, control, row in rows if not row["beyond"]]
    if not within:
        return []
    return [f"Not different from their control, so no evidence: {', '.join(within)}. See the table {TITLE!r}."]


def _scored(batches: Sequence[Batch], decoder: Float[Tensor, "d_sae d_in"]) -> Tally:
    names = _METRICS if len(decoder) < _LARGE else tuple(name for name in _METRICS if name != "embsim")
    metrics = [metric for plugin, metric in registry.made("metrics", Metric) if plugin.name in names]
    return tally(batches, metrics, decoder=decoder)


def _of_means(values: np.ndarray, control: np.ndarray) -> dict[str, Any]:
    difference, low, high = mean_difference(values, control)
    means = [float(np.nanmean(x)) if not np.isnan(x).all() else NAN for x in (values, control)]
    return _row(means[0], means[1], difference, low, high)


def _of_shares(value: Tally, control: Tally) -> dict[str, Any]:
    counts = []
    for table in (value.table, control.table):
        classes = table["modality"].astype(str)
        counts.append((int(np.isin(classes, ("ImgD", "TextD")).sum()), int((classes != "dead").sum())))
    (hits, n), (other_hits, other_n) = counts
    shares = [h / m if m else NAN for h, m in counts]
    difference, low, high = share_difference(hits, n, other_hits, other_n)
    return _row(shares[0], shares[1], difference, low, high)


def _row(value: float, control: float, difference: float, low: float, high: float) -> dict[str, Any]:
    numbers = dict(zip(_COLUMNS, (value, control, difference, low, high), strict=True))
    return {**numbers, "beyond": bool(low > 0 or high < 0)}


def _usual_l0(batches: Sequence[Batch]) -> int:
    codes = [c for batch in batches for m in MODALITIES if (c := batch.codes.of(m)) is not None]
    rows = sum(c.n_rows for c in codes)
    return max(1, round(sum(len(c.rows) for c in codes) / rows)) if rows else 1


def _untrained(batch: Batch, decoder: Float[Tensor, "d_sae d_in"], k: int) -> Batch:
    """Return the batch with the codes and the reconstruction of a random dictionary."""
    draw = torch.Generator().manual_seed(_SEED)
    rows = torch.nn.functional.normalize(torch.randn(decoder.shape, generator=draw), dim=1)
    codes: dict[str, SparseCodes | None] = {}
    rebuilt: dict[str, Tensor | None] = {}
    for m in MODALITIES:
        acts = batch.acts.of(m)
        codes[m] = rebuilt[m] = None
        if acts is not None:
            own = rows.to(acts)
            best = (acts @ own.T).topk(min(k, len(own)), dim=1)
            dense = torch.zeros(len(acts), len(own), dtype=acts.dtype, device=acts.device)
            dense.scatter_(1, best.indices, best.values.clamp_min(0))
            codes[m], rebuilt[m] = SparseCodes.from_dense(dense), dense @ own
    ids, units = batch.codes.ids, batch.codes.units
    paired = PairedCodes(ids, codes["image"], codes["text"], units)
    return replace(batch, codes=paired, reconstruction=PairedActs(ids, rebuilt["image"], rebuilt["text"]))


def _permuted(batch: Batch) -> Batch:
    """Return the batch with each image paired with another caption: captions are rotated by half the batch."""
    n = len(batch.ids)
    order = np.roll(np.arange(n), n // 2)
    codes, units = batch.codes, batch.codes.known_units
    assert codes.text is not None
    turned = Units(units.images, units.captions[order], units.first_image, units.first_caption[order], np.ones(n, bool))
    paired = PairedCodes(codes.ids, codes.image, SparseCodes.from_dense(codes.text.dense()[order]), turned)
    return replace(batch, codes=paired, judged={name: _turned(j, order) for name, j in batch.judged.items()})


def _turned(judged: PairedActs, order: np.ndarray) -> PairedActs:
    return replace(judged, text=None if judged.text is None else judged.text[torch.as_tensor(order)])
