"""Compute MS in a stream: sums over sparse codes, shifted by the minimum at the end."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from cliplens.records import SparseCodes
from cliplens.tally import Sums
from cliplens_plugins.monosemanticity.ms import score

RESOLVED = 1e-9
"""Minimum spread above the latent's minimum, relative to the mean square; a smaller one is rounding in float64."""

_ROWS = 8192
"""Latents whose sums over embeddings are computed at a time."""


class OnePassMS:
    """MS of all latents in one modality by one judge, streamed and mergeable. Equal to `ms` on the dense codes.

    The shift by the minimum subtracts large sums. The score is nan for a latent that fires on every sample with a
    spread below about 3e-5 of its minimum.
    """

    def __init__(self) -> None:
        self._sums = Sums()
        self._low = torch.zeros(0, dtype=torch.float64)
        """Smallest activation of each latent when it fires; inf if it never fired."""
        self._at_low = torch.zeros(0, dtype=torch.int64)
        """Number of firings with that activation."""

    def update(self, codes: SparseCodes, embeddings: Float[Tensor, "row d_judge"]) -> None:
        """Add codes and the judge's unit-norm float64 embeddings (`unit_rows`) of the same samples."""
        judged = embeddings.cpu()
        latents, acts = codes.latents.cpu(), codes.values.detach().double().cpu()
        self._sums.add("rows", codes.n_rows)
        self._sums.add("e", judged.sum(0))
        self._sums.add_per_latent("on", latents, None, codes.d_sae)
        self._sums.add_per_latent("a", latents, acts, codes.d_sae)
        self._sums.add_per_latent("a2", latents, acts * acts, codes.d_sae)
        firing, place = torch.unique(latents, return_inverse=True)
        matrix = csr_matrix(
            (acts.numpy(), (place.numpy(), codes.rows.cpu().numpy())), shape=(len(firing), codes.n_rows)
        )
        for start in range(0, max(len(firing), 1), _ROWS):
            some = np.asarray(matrix[start : start + _ROWS] @ judged.numpy())
            self._sums.add_rows("ae", firing[start : start + _ROWS], torch.as_tensor(some), codes.d_sae)
        low = torch.full((codes.d_sae,), torch.inf, dtype=torch.float64).scatter_reduce_(0, latents, acts, "amin")
        at_low = torch.bincount(latents[acts == low[latents]], minlength=codes.d_sae)
        self._lower(low, at_low)

    def merge(self, other: "OnePassMS") -> None:
        """Add the sums of another instance."""
        self._sums.merge(other._sums)
        if len(other._low):
            self._lower(other._low, other._at_low)

    def state(self) -> dict[str, Tensor]:
        """Return the sums as tensors."""
        return {**self._sums.state(), "low": self._low.clone(), "at_low": self._at_low.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from tensors that `state` returned."""
        self._low, self._at_low = state["low"].clone(), state["at_low"].clone()
        self._sums.load_state({k: v for k, v in state.items() if k not in ("low", "at_low")})

    @property
    def weighted(self) -> Float[Tensor, "latent d_judge"]:
        """Sum of a e of every latent."""
        return self._sums["ae"]

    @property
    def total(self) -> Float[Tensor, " latent"]:
        """Sum of a of every latent."""
        return self._sums["a"]

    def scores(self) -> Float[Tensor, " latent"]:
        """Return MS of every latent; nan unless two samples exceed its minimum by more than rounding error."""
        sums = self._sums
        n, on = sums["rows"], sums["on"]
        silent = n - on
        low = torch.where(silent > 0, self._low.clamp_max(0.0), self._low)
        exceeding = n - torch.where(low == self._low, self._at_low, 0) - torch.where(low == 0, silent, 0)
        a, a2 = sums["a"], sums["a2"]
        lengths = [_squared(part - least[:, None] * sums["e"]) for part, least in _parts(sums["ae"], low)]
        square = a2 - 2 * low * a + n * low * low
        resolved = square > RESOLVED * (a2 + n * low * low)
        return torch.where(resolved, score(a - n * low, square, torch.cat(lengths), exceeding), torch.nan)

    def _lower(self, low: Tensor, at_low: Tensor) -> None:
        if not len(self._low):
            self._low, self._at_low = low.clone(), at_low.clone()
            return
        least = torch.minimum(self._low, low)
        self._at_low = torch.where(self._low == least, self._at_low, 0) + torch.where(low == least, at_low, 0)
        self._low = least


def _squared(rows: Float[Tensor, "latent d_judge"]) -> Float[Tensor, " latent"]:
    return (rows * rows).sum(1)


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the tensors some rows at a time, so that results in between stay small."""
    return zip(*(tensor.split(_ROWS) for tensor in tensors), strict=True)
