"""Codes of a run's rows with the captions of their pairs: which rows say some words, and which latents go with them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from cliplens.records import SparseCodes


@dataclass(frozen=True, eq=False)
class CaptionedRows:
    """Codes of rows, with the pair, the caption and the unit of each. With patches or tokens, a pair has many rows."""

    codes: SparseCodes
    ids: Sequence[str]
    captions: Sequence[str]
    units: Sequence[str]
    """The picture or the text of each row, which are shuffled to see what chance reaches."""

    def saying(self, phrases: Iterable[str]) -> Bool[np.ndarray, " row"]:
        """Return the rows whose captions contain one of the phrases, in any case."""
        pattern = re.compile("|".join(map(whole, sorted(phrases))), re.IGNORECASE)
        return np.array([bool(pattern.search(caption)) for caption in self.captions], dtype=bool)

    def pairs(self, said: Bool[np.ndarray, " row"]) -> int:
        """Return the number of pairs among some rows."""
        return len({pair for pair, has in zip(self.ids, said, strict=True) if has})

    def measured(
        self, said: Bool[np.ndarray, " row"]
    ) -> tuple[Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"], Float[np.ndarray, " d_sae"]]:
        """Return the correlation of each latent's code with `said`, and its firing rate and mean code on these rows.

        Correlations are in [0, 1]; negative ones are 0, and so are those of latents with a constant code.
        """
        codes, label = self.codes, torch.from_numpy(said).double()
        rows, latents, values = codes.rows.cpu(), codes.latents.cpu(), codes.values.double().cpu()
        total, squares, with_label, fired = (
            torch.zeros(codes.d_sae, dtype=torch.float64).index_add_(0, latents, v)
            for v in (values, values**2, values * label[rows], (values > 0).double() * label[rows])
        )
        n, n_said = codes.n_rows, float(label.sum())
        covariance = with_label / n - total / n * label.mean()
        spread = (squares / n - (total / n) ** 2).clamp_min(0).sqrt() * label.std(unbiased=False)
        evidence = torch.where(spread > 0, covariance / spread.clamp_min(1e-12), 0.0).clamp(0, 1)
        return evidence.numpy(), (fired / n_said).numpy(), (with_label / n_said).numpy()


def whole(words: str) -> str:
    """Return a pattern of the words, not as a part of longer ones; they may begin or end with a sign, as "c++" does."""
    return rf"(?<!\w){re.escape(words)}(?!\w)"
