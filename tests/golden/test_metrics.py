"""One golden table: every metric's value on fixed codes, so that silent drift shows in one diff."""

import numpy as np
import torch

from cliplens.keys import pair_keys
from cliplens.statistics import poisson_weights
from cliplens.tally import Sums
from cliplens.tasks import contrastive_loss, retrieval, zero_shot
from cliplens_plugins.fidelity import duplicates, stability
from cliplens_plugins.fidelity.stability import contained
from cliplens_plugins.fidelity.variance import add_variance, explained_variance, explained_variance_legacy
from cliplens_plugins.modality import VARIANTS, bridge, causal_effect, cofiring, decompose, mds, modality_gap
from cliplens_plugins.modality.interval import ratio_interval
from cliplens_plugins.modality.null import swap_p
from cliplens_plugins.monosemanticity import embsim, mms, ms, winrate


def wave(rows: int, columns: int, shift: float) -> np.ndarray:
    """Numbers that are the same everywhere: no generator is asked."""
    n = np.arange(rows * columns).reshape(rows, columns)
    return np.sin(1.7 * n + shift) + 0.3 * np.cos(0.13 * n * n + shift)


IMAGE, TEXT = np.maximum(wave(60, 3, 0.0) - 0.4, 0), np.maximum(wave(60, 3, 1.1) - 0.6, 0)
E, F = wave(60, 5, 0.3), wave(60, 5, 0.3) + 0.8 * wave(60, 5, 2.0)
DECODER = torch.tensor(wave(3, 5, 0.7))


COUNTS = np.array([[[30.0, 5], [10, 10]], [[8, 12], [2, 40]]])
TOP = np.array([[0, 1, 2, 3], [1, 2, 3, 4], [0, 1, -1, -1]])


def explained() -> np.ndarray:
    sums = Sums()
    add_variance(sums, torch.tensor(E), torch.tensor(E + 0.2 * F))
    return np.array([explained_variance([sums]), explained_variance_legacy([sums]), float(sums["cosine"]) / 60])


def causal() -> np.ndarray:
    sides = [torch.tensor(x) for x in (E, F)]
    codes = [torch.tensor(c[:, 0]) for c in (IMAGE, TEXT)]
    found = causal_effect(*sides, *codes, DECODER[0], scale=10.0, n_random=0)
    return np.array([found.image, found.text, found.both])


def golden() -> dict[str, list[float]]:
    unit = [torch.nn.functional.normalize(torch.tensor(x), dim=1) for x in (E, F)]
    d = torch.tensor([3.0, -1.0]).double(), torch.tensor([2.0, 4.0]).double()
    found = {f"mds {v}": mds(IMAGE, TEXT, variant=v) for v in VARIANTS}
    found |= {
        "cofiring": cofiring(IMAGE, TEXT),
        "ms": ms(IMAGE, E),
        "mms": mms(IMAGE, TEXT, E, F),
        "embsim": embsim(IMAGE, E, 8),
        "winrate": winrate(IMAGE, E, 8),
        "bridge": bridge(torch.tensor(IMAGE), torch.tensor(TEXT), DECODER).numpy()[0],
        "swap p": swap_p(*d),
        "wilson": np.concatenate([b.numpy() for b in ratio_interval(torch.tensor([20.0, 30.0]).double(), *d)]),
        "causal": causal(),
        "contained": np.array(contained(TOP, 0.5)[0], dtype=float),
        "duplicates": np.array(duplicates(TOP, 0.2)[0], dtype=float),
        "zero-shot": np.array([zero_shot(unit[0], unit[1][:4], torch.arange(60) % 4)]),
        "bootstrap": poisson_weights(pair_keys([f"p{i}" for i in range(4)]), 5).sum(1),
        "explained variance": explained(),
        "pid mmi": np.array(list(vars(decompose(COUNTS, redundancy="mmi")).values())),
        "pid": np.array(list(vars(decompose(COUNTS)).values())),
        "gap": np.array(list(modality_gap(E, F).values())),
        "loss, R@1": np.array([contrastive_loss(*unit, 10.0), retrieval(*unit, at=(1,))["image_to_text_r1"]]),
        "stability": np.array([stability(DECODER, DECODER.roll(1, 1))[0]["mean_cosine"]], dtype=float),
    }
    return {name: [round(float(x), 9) for x in values] for name, values in found.items()}


EXPECTED: dict[str, list[float]] = {
    "mds pairs": [0.594471331, 0.612273173, 0.611386743],
    "mds half": [0.55038471, 0.558007806, 0.559406263],
    "mds eps": [0.317051361, 0.316341126, 0.326072893],
    "mds ratio_of_means": [0.600194956, 0.640266695, 0.621940958],
    "mds energy": [0.678885254, 0.679059325, 0.677828211],
    "mds firing": [0.58974359, 0.581395349, 0.585365854],
    "cofiring": [0.067181893, 0.331970001, 0.166095693],
    "ms": [0.052085795, -0.014723605, -0.051009614],
    "mms": [-0.017411918, -0.005355855, -0.022826801],
    "embsim": [0.049426047, -0.125423899, -0.015862439],
    "winrate": [0.535714286, 0.442857143, 0.485714286],
    "bridge": [0.051444931, -0.0, -0.004706122],
    "swap p": [0.107740065, 1.0],
    "wilson": [0.509591604, 0.33974982, 0.768472709, 0.598049966],
    "pid": [0.183556045, 0.059847485, 0.0, 0.109759524],
    "causal": [0.058906859, -0.050788571, 0.062571662],
    "contained": [2.0, 0.0, 1.0],
    "duplicates": [0.0, 1.0, 0.6],
    "zero-shot": [0.25],
    "bootstrap": [5.0, 10.0, 5.0, 8.0],
    "explained variance": [0.94314564, 0.941301409, 0.99107089],
    "pid mmi": [0.183556045, 0.059847485, 0.0, 0.109759524],
    "gap": [0.031687701, 0.516666667, 0.010718009],
    "loss, R@1": [4.106842018, 0.0],
    "stability": [0.602516109],
}


def test_golden_values() -> None:
    found = golden()
    assert set(found) == set(EXPECTED)
    for name, values in EXPECTED.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-9, err_msg=name)
