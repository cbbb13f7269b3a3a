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
from jaxtyping import Float, Int64
from scipy.stats import t as student
from torch import Tensor

from cliplens import registry
from cliplens.contracts import Metric
from cliplens.records import Batch, PairedActs, PairedCodes, SparseCodes, Units
from cliplens.sites import MODALITIES
from cliplens.statistics import mean_difference, ratio_difference, share_difference
from cliplens.tally import Tally, tally

PAIRS = 2048
"""Number of pairs for the controls: those of the first batches."""
TITLE = "Controls"
_METRICS = ("mds", "ms", "embsim", "fidelity")
_COLUMNS = ("value", "control", "difference", "low", "high")
_VARIANCE = "explained_variance"
NAN = float("nan")
LATENTS = 8192
"""Most latents that are compared; of more, so many are drawn, the same for a dictionary and its controls."""
_SEED = 17
_JUDGED = ("ms_image", "ms_text", "mms", "embsim_image", "embsim_text", "winrate_image", "winrate_text")
_MEANS = {"untrained": _JUDGED, "permuted": ("cofiring",)}
_TRAINED = (*_JUDGED, "cofiring")
"""Columns compared with controls that were trained."""
RESEEDS = "reseeds"
ABOVE, WITHIN, BELOW = "above the control", "within the control", "below the control"
UNMEASURED = "not measured"
_TWO_SEEDS = 1.96 * 2**0.5
"""Standard deviations over seeds by which two single runs differ by chance alone, at most (95 %)."""
_ENTRIES = 2**22
"""Largest number of entries of a matrix of products."""
SINGLE = "single_modality_share"
"""Share of living latents that are ImgD or TextD by the fixed cuts."""
Controls = Mapping[str, Mapping[str, Mapping[str, Any]]]
Scored = tuple[Sequence[Batch], Float[Tensor, "d_sae d_in"]]
"""Batches with the codes of a dictionary, and its decoder."""


def first_batches(batches: Iterator[Batch], kept: list[Batch], pairs: int = PAIRS) -> Iterator[Batch]:
    """Yield the batches, and append the first ones to `kept` for the controls."""
    for batch in batches:
        if sum(len(held.ids) for held in kept) < pairs:
            kept.append(batch)
        yield batch


def first(batches: Iterator[Batch], pairs: int = PAIRS) -> list[Batch]:
    """Return the batches that `first_batches` keeps, without reading more."""
    kept: list[Batch] = []
    for _ in first_batches(batches, kept, pairs):
        if sum(len(held.ids) for held in kept) >= pairs:
            break
    return kept


def controls(
    batches: Sequence[Batch],
    decoder: Float[Tensor, "d_sae d_in"],
    trained: Mapping[str, Sequence[Scored]] | None = None,
) -> Controls:
    """Return the controls of each figure, by figure and control.

    Each holds `value`, `control`, `difference`, the limits of the interval of the difference, and `beyond`: whether the
    value is above the control, that is the interval is above 0 and, with reseeds, the difference is larger than between
    two seeds (1.96 * sqrt(2) standard deviations, arXiv 2605.18229). The intervals are bootstrap intervals over latents
    (shares: Newcombe's), those of explained variance over pictures. For `reseeds` the control is the mean over seeds,
    the interval is the prediction interval for one more seed (Student t), and `beyond` means that the run lies outside
    of it.

    Args:
        batches: the scored pairs that are used.
        decoder: decoder of the dictionary.
        trained: batches and decoders of the dictionaries that were trained as controls, by name of the control.
    """
    value = _scored(batches, decoder)
    random, k = _random_rows(decoder), _usual_l0(batches)
    rebuilt: dict[str, Sequence[Batch]] = {"untrained": [_untrained(b, random, k) for b in batches]}
    del random
    rebuilt |= {name: made[0][0] for name, made in (trained or {}).items() if name != RESEEDS}
    others = {"untrained": _scored(rebuilt["untrained"], decoder)}
    pairs = [b for b in batches if b.codes.image is not None and b.codes.text is not None and len(b.ids) > 1]
    shuffled = [_permuted(b) for b in pairs]
    if shuffled:
        others["permuted"] = _scored(shuffled, decoder)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    again = {name: [_scored(*scored) for scored in made] for name, made in (trained or {}).items()}
    others |= {name: made[0] for name, made in again.items() if name != RESEEDS}
    for name, control in others.items():
        for figure, row in _compared(value, control, _MEANS.get(name, _TRAINED), classes=name != "permuted"):
            found.setdefault(figure, {})[name] = row
    own = _errors(batches)
    for name, made in rebuilt.items():
        if _VARIANCE in value.figures:
            numbers = value.figures[_VARIANCE], own, others[name].figures[_VARIANCE], _errors(made)
            found.setdefault(_VARIANCE, {})[name] = _of_variances(*numbers)
    if RESEEDS in again:
        _add_reseeds(found, value, again[RESEEDS])
    return found


def _compared(
    value: Tally, control: Tally, columns: Sequence[str], *, classes: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each figure with its row. Classes need no pairs, so permuted pairs are no control of them."""
    for column in columns:
        if column in value.table and column in control.table:
            yield column, _of_means(value.table[column], control.table[column])
    if classes and "modality" in value.table and "modality" in control.table:
        yield SINGLE, _of_shares(value, control)


Parts = Float[np.ndarray, "2 picture"]
"""Squared error, and squared distance from the mean of all rows, summed over the rows of each picture."""


def _errors(batches: Sequence[Batch]) -> Parts:
    sides = [(batch, batch.acts.of(m), batch.reconstruction.of(m)) for batch in batches for m in MODALITIES]
    known = [
        (b.codes.known_units.images, x.double(), back.double())
        for b, x, back in sides
        if x is not None and back is not None
    ]
    if not known:
        return np.zeros((2, 0))
    mean = torch.stack([x.sum(0) for _, x, _ in known]).sum(0) / sum(len(x) for _, x, _ in known)
    picture = np.unique(np.concatenate([images for images, _, _ in known]), return_inverse=True)[1]
    error, distance = (
        torch.cat([(x - other).square().sum(1) for x, other in rows]).cpu().numpy()
        for rows in ([(x, back) for _, x, back in known], [(x, mean) for _, x, _ in known])
    )
    return np.stack([np.bincount(picture, error), np.bincount(picture, distance)])


def _of_variances(value: float, own: Parts, control: float, other: Parts) -> dict[str, Any]:
    """Return the row of explained variance; both sides have the same pictures, which are resampled together."""
    _, low, high = ratio_difference(other, own) if np.isfinite([value, control]).all() else (NAN,) * 3
    return _row(value, control, value - control, low, high)


def _add_reseeds(found: dict[str, dict[str, dict[str, Any]]], value: Tally, seeds: Sequence[Tally]) -> None:
    """Add the spread over seeds to each figure, and hold the differences from other controls against it."""
    for figure, by_control in found.items():
        own = _figure(value, figure)
        drawn = np.array([_figure(seed, figure) for seed in seeds])
        mean, spread = float(drawn.mean()), float(drawn.std(ddof=1)) if len(drawn) > 1 else NAN
        half = float(student.ppf(0.975, len(drawn) - 1)) * spread * (1 + 1 / len(drawn)) ** 0.5
        for row in by_control.values():
            row["beyond"] = row["beyond"] and abs(row["difference"]) > _TWO_SEEDS * spread
        numbers = (own, mean, own - mean, own - mean - half, own - mean + half)
        by_control[RESEEDS] = {**_row(*numbers), "beyond": abs(numbers[2]) > half}


def _figure(tally: Tally, figure: str) -> float:
    if figure == _VARIANCE:
        return float(tally.figures[figure])
    return _share(tally)[0] if figure == SINGLE else _mean(tally.table[figure])


def table_of(found: Controls) -> list[dict[str, Any]]:
    """Return the controls as rows of a table."""
    return [
        {
            "figure": figure,
            "against": control.replace("_", " "),
            **{k: row[k] for k in _COLUMNS},
            "verdict": _verdict(control, row),
        }
        for figure, by_control in found.items()
        for control, row in by_control.items()
    ]


def _measured(row: Mapping[str, Any]) -> bool:
    return bool(np.isfinite([row["value"], row["control"]]).all())


def _verdict(control: str, row: Mapping[str, Any]) -> str:
    if not _measured(row):
        return UNMEASURED
    if control == RESEEDS:
        return "unlike other seeds" if row["beyond"] else "as other seeds"
    if row["beyond"]:
        return ABOVE
    return BELOW if row["high"] < 0 else WITHIN


def notes_of(found: Controls) -> list[str]:
    """Return a note that lists the figures that are not above a control, and one on figures unlike other seeds."""
    rows = [(figure, control, row) for figure, c in found.items() for control, row in c.items()]
    named = [(f"{f} ({c.replace('_', ' ')})", row) for f, c, row in rows if c != RESEEDS]
    within = [name for name, row in named if _measured(row) and not row["beyond"]]
    missing = [name for name, row in named if not _measured(row)]
    unusual = [figure for figure, control, row in rows if control == RESEEDS and row["beyond"]]
    says = {
        "Not above their control, so no evidence": within,
        "Not measured beside their control, for want of samples": missing,
        "Outside the prediction interval of other seeds": unusual,
    }
    return [f"{text}: {', '.join(names)}. See the table {TITLE!r}." for text, names in says.items() if names]


def _scored(batches: Sequence[Batch], decoder: Float[Tensor, "d_sae d_in"]) -> Tally:
    metrics = (metric for plugin, metric in registry.made("metrics", Metric) if plugin.name in _METRICS)
    some = _drawn_latents(len(decoder))
    narrow = batches if some is None else (_narrowed(batch, some) for batch in batches)
    # without the decoder, whose nearest rows no control needs
    return tally(narrow, metrics, decoder=None, merge=False)


def _drawn_latents(d_sae: int) -> Int64[np.ndarray, " drawn"] | None:
    """Return the latents that are compared, drawn at random; None for all."""
    if d_sae <= LATENTS:
        return None
    return np.sort(np.random.default_rng(_SEED).choice(d_sae, LATENTS, replace=False))


def _narrowed(batch: Batch, latents: Int64[np.ndarray, " drawn"]) -> Batch:
    """Return the batch with the codes of some latents. Activations and their reconstruction stay those of all."""
    codes = batch.codes
    image, text = (None if c is None else c.of_latents(latents) for c in (codes.image, codes.text))
    return replace(batch, codes=PairedCodes(codes.ids, image, text, codes.units))


def _of_means(values: np.ndarray, control: np.ndarray) -> dict[str, Any]:
    difference, low, high = mean_difference(values, control)
    return _row(_mean(values), _mean(control), difference, low, high)


def _mean(values: np.ndarray) -> float:
    return NAN if np.isnan(values).all() else float(np.nanmean(values))


def _of_shares(value: Tally, control: Tally) -> dict[str, Any]:
    (share, hits, n), (other_share, other_hits, other_n) = _share(value), _share(control)
    return _row(share, other_share, *share_difference(hits, n, other_hits, other_n))


def _share(tally: Tally) -> tuple[float, int, int]:
    """Return the share of living latents that are ImgD or TextD, and both numbers."""
    classes = tally.table["modality"].astype(str)
    hits, n = int(np.isin(classes, ("ImgD", "TextD")).sum()), int((classes != "dead").sum())
    return hits / n if n else NAN, hits, n


def _row(value: float, control: float, difference: float, low: float, high: float) -> dict[str, Any]:
    numbers = dict(zip(_COLUMNS, (value, control, difference, low, high), strict=True))
    return {**numbers, "beyond": bool(low > 0)}


def _usual_l0(batches: Sequence[Batch]) -> int:
    codes = [c for batch in batches for m in MODALITIES if (c := batch.codes.of(m)) is not None]
    rows = sum(c.n_rows for c in codes)
    return max(1, round(sum(len(c.rows) for c in codes) / rows)) if rows else 1


def _random_rows(decoder: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_in"]:
    """Return random unit rows of the shape of a decoder."""
    draw = torch.Generator().manual_seed(_SEED)
    return torch.nn.functional.normalize(torch.randn(decoder.shape, generator=draw), dim=1)


def _untrained(batch: Batch, rows: Float[Tensor, "d_sae d_in"], k: int) -> Batch:
    """Return the batch with the codes and the reconstruction of a dictionary with these decoder rows."""
    codes: dict[str, SparseCodes | None] = {}
    rebuilt: dict[str, Tensor | None] = {}
    for m in MODALITIES:
        acts = batch.acts.of(m)
        codes[m] = rebuilt[m] = None
        if acts is not None:
            codes[m], rebuilt[m] = _random(acts, rows.to(acts), k)
    ids, units = batch.codes.ids, batch.codes.units
    paired = PairedCodes(ids, codes["image"], codes["text"], units)
    return replace(batch, codes=paired, reconstruction=PairedActs(ids, rebuilt["image"], rebuilt["text"]))


def _random(
    acts: Float[Tensor, "row d_in"], own: Float[Tensor, "d_sae d_in"], k: int
) -> tuple[SparseCodes, Float[Tensor, "row d_in"]]:
    """Return the `k` largest products with random rows as codes, and what these rows rebuild."""
    codes, rebuilt = [], []
    for part in acts.split(max(1, _ENTRIES // len(own))):
        best = (part @ own.T).topk(min(k, len(own)), dim=1)
        latents, order = best.indices.sort(dim=1)
        values = best.values.clamp_min(0).gather(1, order)
        row, place = values.nonzero(as_tuple=True)
        codes.append(SparseCodes(row, latents[row, place], values[row, place], len(part), len(own)))
        rebuilt.append(torch.nn.functional.embedding_bag(latents, own, mode="sum", per_sample_weights=values))
    return SparseCodes.joined(codes, len(own)), torch.cat(rebuilt)


def _permuted(batch: Batch) -> Batch:
    """Return the batch with each image paired with another caption: captions are rotated by half the batch."""
    n = len(batch.ids)
    order = np.roll(np.arange(n), n // 2)
    codes, units = batch.codes, batch.codes.known_units
    assert codes.text is not None
    turned = Units(units.images, units.captions[order], units.first_image, units.first_caption[order], np.ones(n, bool))
    paired = PairedCodes(codes.ids, codes.image, codes.text.ordered(order), turned)
    return replace(batch, codes=paired, judged={name: _turned(j, order) for name, j in batch.judged.items()})


def _turned(judged: PairedActs, order: np.ndarray) -> PairedActs:
    return replace(judged, text=None if judged.text is None else judged.text[torch.as_tensor(order)])
