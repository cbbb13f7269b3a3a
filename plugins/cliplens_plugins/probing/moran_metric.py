"""Moran's I of every latent of a dictionary that reads patches."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Need
from cliplens.keys import hashed
from cliplens.records import Batch, Column, Findings, SparseCodes
from cliplens.tally import Mergeable, MetricOfParts, Sums
from cliplens_plugins.probing.moran import morans_i

LEAST_PATCHES = 5
MOST_PATCHES = 0.9
"""An image counts for a latent that fires on at least 5 and at most 90 % of its patches."""
LEAST_IMAGES = 50
_SEED = 43
_BLOCK = 4096
_COLUMNS = (
    Column(
        "moran",
        f"Moran's I of the latent's map of patches: whether it fires on neighbouring patches. Mean over images where "
        f"it fires on at least {LEAST_PATCHES} and at most {MOST_PATCHES:.0%} of the patches.",
        range="about [-1, 1]",
        nan=f"fewer than {LEAST_IMAGES} such images",
        source="Moran 1950",
    ),
    Column(
        "moran_shuffled",
        "Control: the same with the patches of each image in random order; -1/(N - 1) on average for N patches.",
        range="about [-1, 1]",
        nan=f"fewer than {LEAST_IMAGES} such images",
    ),
    Column(
        "moran_images", "Number of images that `moran` and `moran_shuffled` are means over.", unit="count", range="0 .."
    ),
)


class MoranMetric(MetricOfParts):
    """Compute the mean Moran's I of each latent over images, and the same with shuffled patches.

    It gives no columns if rows are not patches. Images must have a square number of patches, in consecutive rows of one
    batch. A picture with several captions counts once.
    """

    name: ClassVar[str] = "moran"
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self) -> None:
        self._sums = Sums()

    def update(self, batch: Batch) -> None:
        """Add one batch."""
        codes = batch.codes.image
        if codes is None:
            return
        ids, units = batch.ids, batch.codes.known_units
        starts = [n for n in range(len(ids)) if n == 0 or ids[n] != ids[n - 1]]
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            side = round((stop - start) ** 0.5)
            if side > 1 and side * side == stop - start and units.first_image[start]:
                self._add(codes, start, side, int(hashed(units.images[[start]], _SEED)[0]))

    def parts(self) -> dict[str, Mergeable]:
        """Return the sums."""
        return {"sums": self._sums}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the columns; none if no image had patches."""
        if "images" not in self._sums:
            return Findings()
        images = self._sums["images"].cpu().numpy()
        enough = images >= LEAST_IMAGES
        means = [
            np.where(enough, self._sums[name].cpu().numpy() / np.maximum(images, 1), np.nan)
            for name in ("moran", "shuffled")
        ]
        figures = {
            f"moran{tail}": float(np.nanmean(mean)) if enough.any() else float("nan")
            for tail, mean in zip(("", "_shuffled"), means, strict=True)
        }
        return Findings(
            {"moran": means[0], "moran_shuffled": means[1], "moran_images": images}, _COLUMNS, figures=figures
        )

    def _add(self, codes: SparseCodes, start: int, side: int, key: int) -> None:
        patches = side * side
        mine = (codes.rows >= start) & (codes.rows < start + patches)
        rows, latents, values = codes.rows[mine] - start, codes.latents[mine], codes.values[mine].double()
        count = torch.bincount(latents, minlength=codes.d_sae)
        chosen = ((count >= LEAST_PATCHES) & (count <= MOST_PATCHES * patches)).nonzero()[:, 0]
        place = torch.full((codes.d_sae,), -1, device=latents.device)
        place[chosen] = torch.arange(len(chosen), device=latents.device)
        held = place[latents] >= 0
        maps = values.new_zeros(len(chosen), patches)
        maps[place[latents[held]], rows[held]] = values[held]
        order = torch.as_tensor(np.random.default_rng(key).permutation(patches), device=maps.device)
        self._sums.add("images", torch.bincount(chosen, minlength=codes.d_sae))
        for name, shown in (("moran", maps), ("shuffled", maps[:, order])):
            found = [morans_i(part.unflatten(1, (side, side))) for part in shown.split(_BLOCK)]
            total = values.new_zeros(codes.d_sae)
            total[chosen] = torch.cat([values.new_zeros(0), *found]).nan_to_num()
            self._sums.add(name, total)
