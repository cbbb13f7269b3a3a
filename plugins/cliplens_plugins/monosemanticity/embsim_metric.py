"""Compute EmbSim and WinRate in one streaming pass.

Memory is bounded: per judge and modality, the metric keeps the embeddings of the top 20 samples of every latent, and of
the top 50 samples of up to 1,024 random latents for the table of sensitivity to m.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.arrays import unit_rows
from cliplens.contracts import Need
from cliplens.records import Batch, Column, Findings
from cliplens.sites import MODALITIES
from cliplens.tally import Mergeable, MetricOfParts, PartPerKey
from cliplens_plugins.monosemanticity.baseline import drawn
from cliplens_plugins.monosemanticity.embsim import embsim_score
from cliplens_plugins.monosemanticity.similarity import Score, averaged
from cliplens_plugins.monosemanticity.sketch import TopEmbeddings, drawn_latents
from cliplens_plugins.monosemanticity.winrate import winrate_score

M = 20
SENSITIVITY = (10, 20, 30, 50)
_SOURCE = "Yan et al., arXiv 2502.14888; reimplementation"
_SCORES: dict[str, Score] = {"embsim": embsim_score, "winrate": winrate_score}
_ABOUT = {
    "embsim": ("mean similarity of two of the top 20 samples, minus that of two random samples", "[-2, 2]"),
    "winrate": (
        "probability that two of the top 20 samples are more similar than two random ones (chance 0.5)",
        "[0, 1]",
    ),
}
_OF = {"image": "images", "text": "captions", "cross": "images against captions"}


class EmbSimMetric(MetricOfParts):
    """EmbSim and WinRate per modality, and across modalities if one judge embeds both; also the sensitivity to m."""

    name: ClassVar[str] = "embsim"
    needs: ClassVar[frozenset[Need]] = frozenset({"judge"})

    def __init__(self, top: tuple[int, ...] = SENSITIVITY) -> None:
        self._top = top
        self._seen = PartPerKey(partial(_top_embeddings, top=max(top)))
        """Top samples by judge and modality, with keys `judge/modality`."""

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        for judge, embeddings in batch.judged.items():
            for side in MODALITIES:
                codes, judged = batch.codes.of(side), embeddings.of(side)
                if codes is not None and judged is not None:
                    self._seen[f"{judge}/{side}"].update(batch.codes, unit_rows(judged.detach()).float().cpu())

    def parts(self) -> dict[str, Mergeable]:
        """Return the top samples with their embeddings."""
        return {"seen": self._seen}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the columns for m = 20, and a table of medians for every m over a random draw of latents."""
        columns: dict[str, np.ndarray] = {}
        schema: list[Column] = []
        rows: list[dict[str, Any]] = []
        judges = list(dict.fromkeys(key.rpartition("/")[0] for key in self._seen))
        for one in (c for judge in judges for what in _OF if (c := self._comparison(judge, what))):
            for m in self._top:
                scores = one.scores(m)
                rows.append(_row(one.judge, one.what, m, {name: v[one.drawn] for name, v in scores.items()}))
                if m == M:
                    suffix = one.what if one.judge == judges[0] else f"{one.what}_{one.judge}"
                    columns |= {f"{name}_{suffix}": values for name, values in scores.items()}
                    schema += [_column(name, suffix, one.what, one.judge) for name in scores]
        tables = {"EmbSim and WinRate by the number of top samples": rows} if rows else {}
        return Findings(columns, tuple(schema), {}, tables)

    def _comparison(self, judge: str, what: str) -> "_Comparison | None":
        """Return None if the judge has not seen these samples, or embeds the modalities in different spaces."""
        ends = ("image", "text") if what == "cross" else (what, what)
        if not all(f"{judge}/{end}" in self._seen for end in ends):
            return None
        left, right = (self._seen[f"{judge}/{end}"] for end in ends)
        if left.pool.rows.shape[1:] != right.pool.rows.shape[1:]:
            return None
        return _Comparison(judge, what, left, right, max(self._top))


def _top_embeddings(key: str, top: int) -> TopEmbeddings:
    return TopEmbeddings("image" if key.endswith("/image") else "text", top, M)


class _Comparison:
    """Compares the top samples of one modality with each other, or those of images with those of captions."""

    def __init__(self, judge: str, what: str, left: TopEmbeddings, right: TopEmbeddings, top: int) -> None:
        self.judge, self.what = judge, what
        table = left.samples.table()
        self._tops = table, table if right is left else right.samples.table()
        self.drawn = drawn_latents(len(self._tops[0]))
        self._rows = left.rows(), right.rows()
        if what == "cross":
            self._ids = np.array(left.samples.ids, dtype=np.str_), np.array(right.samples.ids, dtype=np.str_)
        n_pool = min(len(left.pool.rows), len(right.pool.rows))
        self._pool = (left.pool.rows[:n_pool].double() @ right.pool.rows[:n_pool].double().T).numpy()
        self._draws = drawn(n_pool, min(top, n_pool), len(self._tops[0]))

    def scores(self, m: int) -> dict[str, np.ndarray]:
        """Return both scores for one m, of every latent if m is `M`, else of those in the table."""
        tops = self._tops[0][:, :m], self._tops[1][:, :m]
        draws = self._draws if m <= self._draws.shape[2] else self._draws[:, :0]
        counts = self._of_different_pairs if self.what == "cross" else None
        some = None if m == M else self.drawn
        return averaged(_SCORES, tops, self._similar, self._pool, draws, counts, some)

    def _similar(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        left, right = (rows.numpy()[at[k]].astype(np.float64) for (rows, at), k in zip(self._rows, (i, j), strict=True))
        return left @ right.transpose(0, 2, 1)

    def _of_different_pairs(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return self._ids[0][i][:, :, None] != self._ids[1][j][:, None, :]


def _row(judge: str, what: str, m: int, scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    known = {name: values[~np.isnan(values)] for name, values in scores.items()}
    medians = {name: float(np.median(v)) if len(v) else float("nan") for name, v in known.items()}
    return {"judge": judge, "samples": _OF[what], "m": m, **medians, "latents": len(known["embsim"])}


def _column(name: str, suffix: str, what: str, judge: str) -> Column:
    about, span = _ABOUT[name]
    text = f"{name} over {_OF[what]} by the judge {judge!r}: {about}."
    return Column(f"{name}_{suffix}", text, range=span, nan="fewer than 20 samples fire", source=_SOURCE)
