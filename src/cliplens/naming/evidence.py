"""Split evidence into two halves, one to make names from and one to test them on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cliplens import keys
from cliplens.records import Evidence, Exemplars, Pair, PairedActs, PairedCodes, SparseCodes


def split_evidence(evidence: Evidence, seed: int = 7) -> tuple[Evidence, Evidence]:
    """Split the evidence into two halves without a common picture: one to make names from, one to test them on.

    The half of a pair depends only on its `image_id` and on `seed`.
    """
    return half_of(evidence, seed, first=True), half_of(evidence, seed, first=False)


def image_share(evidence: Evidence) -> Float[np.ndarray, " d_sae"] | None:
    """Return each latent's activation on background images, divided by that on background images and captions.

    Range [0, 1]; 0.5 for latents that fire on neither. None if the codes of one modality are not known.
    """
    codes = evidence.background_codes
    if codes is None or codes.image is None or codes.text is None:
        return None
    image, text = (
        np.bincount(side.latents.cpu().numpy(), side.values.detach().cpu().double().numpy(), minlength=evidence.d_sae)
        for side in (codes.image, codes.text)
    )
    total = image + text
    return np.where(total > 0, image / np.where(total > 0, total, 1), 0.5)


def half_of(evidence: Evidence, seed: int = 7, *, first: bool) -> Evidence:
    """Return one of the halves of `split_evidence`, so that only one of them is in memory."""

    def keep(pairs: Sequence[Pair]) -> Bool[np.ndarray, " pair"]:
        return keys.held_out(keys.pair_keys([p.image_id for p in pairs]), 0.5, seed) == first

    parts: dict[str, Any] = {}
    for side, acts in (("images", evidence.image_acts), ("texts", evidence.text_acts)):
        exemplars: Exemplars | None = getattr(evidence, side)
        if exemplars is not None:
            kept = keep(exemplars.pairs)
            parts[side] = _exemplars_where(exemplars, kept)
            parts[f"{side[:-1]}_acts"] = None if acts is None else _single(acts[torch.from_numpy(np.flatnonzero(kept))])
    kept = keep(evidence.background)
    parts["background"] = tuple(p for p, k in zip(evidence.background, kept, strict=True) if k)
    rows = torch.from_numpy(np.flatnonzero(kept))
    if evidence.background_acts is not None:
        ids = tuple(p.id for p in parts["background"])
        both = (evidence.background_acts.image, evidence.background_acts.text)
        parts["background_acts"] = PairedActs(ids, *(None if acts is None else acts[rows] for acts in both))
    if evidence.background_codes is not None:
        parts["background_codes"] = _codes_where(evidence.background_codes, rows)
    return replace(evidence, **parts)


def whole(evidence: Evidence) -> Evidence:
    """Return all of the evidence, for a namer: embeddings that are kept in float16 as float32."""
    image, text = (None if rows is None else _single(rows) for rows in (evidence.image_acts, evidence.text_acts))
    return replace(evidence, image_acts=image, text_acts=text)


def _single(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    return rows.float() if rows.dtype == torch.float16 else rows


def _exemplars_where(exemplars: Exemplars, kept: Bool[np.ndarray, " pair"]) -> Exemplars:
    """Return the exemplars among the kept pairs, strongest first and without gaps."""
    new_index = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # -1 means no sample and stays -1
    at = new_index[exemplars.at]
    order = np.argsort(at < 0, axis=1, kind="stable")
    at = np.take_along_axis(at, order, axis=1)
    values = np.where(at >= 0, np.take_along_axis(exemplars.values, order, axis=1), 0.0)
    pairs = tuple(p for p, k in zip(exemplars.pairs, kept, strict=True) if k)
    return Exemplars(exemplars.modality, pairs, at, values)


def _codes_where(codes: PairedCodes, rows: Int64[Tensor, " kept"]) -> PairedCodes:
    def of(side: SparseCodes | None) -> SparseCodes | None:
        return None if side is None else _rows_of(side, rows)

    return PairedCodes(tuple(codes.ids[int(r)] for r in rows), of(codes.image), of(codes.text))


def _rows_of(codes: SparseCodes, rows: Int64[Tensor, " kept"]) -> SparseCodes:
    """Return some rows of sparse codes, given in increasing order, without building the dense matrix."""
    rows = rows.to(codes.rows.device)
    new_index = torch.full((codes.n_rows,), -1, dtype=torch.int64, device=codes.rows.device)
    new_index[rows] = torch.arange(len(rows), device=codes.rows.device)
    at = new_index[codes.rows]
    kept = at >= 0
    return SparseCodes(at[kept], codes.latents[kept], codes.values[kept], len(rows), codes.d_sae)
