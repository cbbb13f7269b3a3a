"""Compute the monosemanticity columns of the latent table."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.arrays import unit_rows
from cliplens.contracts import Need
from cliplens.records import Batch, Column, Findings, PairedActs, SparseCodes
from cliplens.sites import MODALITIES
from cliplens.tally import Mergeable, MetricOfParts, PartPerKey, Sums
from cliplens_plugins.monosemanticity.mms import add_own_pairs, mms_score, one_space
from cliplens_plugins.monosemanticity.one_pass import OnePassMS

_SOURCE = "Pach et al., arXiv 2504.02821; one-pass form, arXiv 2602.12403"
_SEEN_AS = {"image": "images", "text": "captions"}


class MonosemanticityMetric(MetricOfParts):
    """MS of every latent per modality and judge, and MMS between modalities if one judge embeds both.

    Each image and each caption text counts once. The columns of the first judge are `ms_image` and `ms_text`; those of
    further judges end in the judge's name.
    """

    name: ClassVar[str] = "ms"
    needs: ClassVar[frozenset[Need]] = frozenset({"judge"})

    def __init__(self) -> None:
        self._scores = PartPerKey(_no_scores)
        """Sums of MS by judge and modality, with keys `judge/modality`."""
        self._own = PartPerKey(_no_sums)
        """Sums over pairs of an image with its own caption, by judge."""

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        units = batch.codes.known_units
        first = {"image": units.first_image, "text": units.first_caption}
        for judge, given in batch.judged.items():
            embeddings = _unit(given)
            for side in MODALITIES:
                codes, judged = batch.codes.of(side), embeddings.of(side)
                if codes is not None and judged is not None:
                    self._scores[f"{judge}/{side}"].update(*_each_once(codes, judged, first[side]))
            if batch.codes.image is not None and batch.codes.text is not None and one_space(embeddings):
                add_own_pairs(self._own[judge], batch.codes, embeddings, units.first_pair)

    def parts(self) -> dict[str, Mergeable]:
        """Return the sums of MS and those over own pairs."""
        return {"scores": self._scores, "own": self._own}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return a column per judge and modality, and the medians as figures."""
        columns: dict[str, np.ndarray] = {}
        schema: list[Column] = []
        rows: list[dict[str, str | float | int]] = []
        judges = list(dict.fromkeys(key.rpartition("/")[0] for key in self._scores))
        for key, seen in self._scores.items():
            judge, _, side = key.rpartition("/")
            name = f"ms_{side}" if judge == judges[0] else f"ms_{side}_{judge}"
            values = seen.scores()
            columns[name] = values.numpy()
            schema.append(_column(name, side, judge))
            defined = values[~torch.isnan(values)]
            median = float(defined.median()) if len(defined) else float("nan")
            rows.append({"judge": judge, "modality": side, "median": median, "latents": len(defined)})
        for judge, own in self._own.items():
            name = "mms" if judge == judges[0] else f"mms_{judge}"
            columns[name] = self._mms(judge, own).numpy()
            schema.append(_mms_column(name, judge))
        figures = {f"ms_{row['modality']}_{row['judge']}": row["median"] for row in rows}
        return Findings(columns, tuple(schema), {"ms": figures}, {"Monosemanticity (MS)": rows} if rows else {})

    def _mms(self, judge: str, own: Sums) -> Float[Tensor, " latent"]:
        image, text = self._scores[f"{judge}/image"], self._scores[f"{judge}/text"]
        return mms_score(image.weighted, text.weighted, image.total, text.total, own["ab"], own["ab_alike"])


def _each_once(
    codes: SparseCodes, judged: Float[Tensor, "row d_judge"], first: Bool[np.ndarray, " row"]
) -> tuple[SparseCodes, Float[Tensor, "kept d_judge"]]:
    """Keep the first row of each distinct image or text, so that a sample counts once."""
    return (codes, judged) if first.all() else (codes.take(first), judged[torch.as_tensor(first)])


def _no_scores(key: str) -> OnePassMS:
    return OnePassMS()


def _no_sums(judge: str) -> Sums:
    return Sums()


def _unit(embeddings: PairedActs) -> PairedActs:
    image, text = embeddings.image, embeddings.text
    return PairedActs(
        embeddings.ids,
        None if image is None else unit_rows(image.detach()),
        None if text is None else unit_rows(text.detach()),
    )


def _mms_column(name: str, judge: str) -> Column:
    about = (
        f"Cross-modal MonoSemanticity score by the judge {judge!r}: mean similarity of an image and a caption of "
        "another pair, weighted by activation."
    )
    source = "Kaushik et al., arXiv 2601.20028"
    return Column(name, about, range="[-1, 1]", nan="does not fire on both modalities", source=source)


def _column(name: str, side: str, judge: str) -> Column:
    about = (
        f"MonoSemanticity score over {_SEEN_AS[side]}: mean similarity of two samples to the judge {judge!r}, "
        "weighted by activation."
    )
    return Column(name, about, range="[-1, 1]", nan="fewer than two samples above the latent's minimum", source=_SOURCE)
