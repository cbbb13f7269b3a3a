"""Is gender still read from drawings after it was removed by a linear map?"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cliplens.pairs.emoji import ARTISTS
from cliplens.studies import linear_probe, mlp_probe, probe_auc
from cliplens_hooks.training.emoji_figures import GENDERS, Judged
from cliplens_plugins.bias.projections import leace, off_directions

Map = Callable[[Tensor], Tensor]


def erased(model: Judged) -> dict[str, tuple[float | None, float | None]]:
    """Return the AUROC of probes for woman and man, fitted on drawings of trained cells, on those of unseen cells.

    Maps are fitted on the trained cells as well, and probes again after each map. The control takes away as many random
    directions as the difference of means is: one.
    """
    rows, labels = zip(*(_part(model, unseen) for unseen in (False, True)), strict=True)
    difference = rows[0][labels[0] == 1].mean(0) - rows[0][labels[0] == 0].mean(0)
    random = torch.randn(len(difference), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps: dict[str, Map] = {
        "as it is": lambda x: x,
        "without a random direction": lambda x: x @ off_directions(random[None]),
        "without the difference of means": lambda x: x @ off_directions(difference[None]),
        "after LEACE": leace(rows[0], labels[0]),
    }
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, change in maps.items():
        fitted, tested = (change(part).double() for part in rows)
        for probe, fit in (("linear probe", linear_probe), ("probe with a hidden layer", mlp_probe)):
            auc = probe_auc(fit(fitted, labels[0])(tested), labels[1].numpy())
            found[f"gender in drawings {name}, {probe}"] = 0.5, auc
    return found


def _part(model: Judged, unseen: bool) -> tuple[Tensor, Tensor]:
    places = np.concatenate([model.cells(artist, unseen=unseen, gendered=True) for artist in ARTISTS])
    genders = [GENDERS.index(model.gallery.drawings[n].gender) for n in places]
    return model.image[places].double(), torch.tensor(genders)
