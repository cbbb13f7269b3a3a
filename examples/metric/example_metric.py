"""A metric with two columns: the mean activation of each latent where it fires, on images and on captions.

`cliplens run` and `cliplens score` find it through its entry point. A metric keeps sums, so that batches may come in
any order and the sums of several processes can be merged.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings
from cliplens.sites import Modality
from cliplens.tally import Sums

MODALITIES: tuple[Modality, ...] = ("image", "text")


class MeanActivationMetric(Metric):
    """Computes the mean activation of each latent over the pairs on which it fires."""

    name: ClassVar[str] = "mean_activation"
    needs: ClassVar[frozenset[Literal["pairs", "judge", "truth", "targets", "raw"]]] = frozenset()

    def __init__(self) -> None:
        self._sums = Sums()

    def update(self, batch: Batch) -> None:
        """Add the activations and firings of one batch."""
        for modality in MODALITIES:
            codes = batch.codes.of(modality)
            if codes is not None:
                self._sums.add_per_latent(f"{modality}.total", codes.latents, codes.values, codes.d_sae)
                self._sums.add_per_latent(f"{modality}.firings", codes.latents, None, codes.d_sae)

    def merge(self, other: Metric) -> None:
        """Add the sums of another instance."""
        if not isinstance(other, MeanActivationMetric):
            raise InputError(
                expected="another MeanActivationMetric",
                found=type(other).__name__,
                fix="merge metrics of the same class",
            )
        self._sums.merge(other._sums)

    def state(self) -> dict[str, Tensor]:
        """Return the sums, for saving or for another process."""
        return self._sums.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""
        self._sums.load_state(state)

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return one column per modality that was seen."""
        columns = {}
        for modality in MODALITIES:
            if f"{modality}.total" in self._sums:
                mean = self._sums[f"{modality}.total"] / self._sums[f"{modality}.firings"]  # 0 / 0 is nan
                columns[f"mean_activation_{modality}"] = mean.cpu().numpy()
        return Findings(columns, tuple(_described(name) for name in columns))


def _described(name: str) -> Column:
    return Column(
        name,
        "Mean activation of the latent over the samples on which it fires. nan: it never fires.",
        unit="activation",
        range="0 ..",
    )
