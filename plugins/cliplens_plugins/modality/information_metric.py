"""Stream the partial information decomposition of each latent about targets: eight counts per latent."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens.contracts import Need
from cliplens.errors import unknown_name
from cliplens.records import Batch, Column, Findings, PairedCodes
from cliplens.tally import Mergeable, MetricOfParts, PartPerKey, Sums
from cliplens_plugins.modality.information import REDUNDANCIES, Atoms, decompose

SHUFFLES = 20
_SEED = 41
_SOURCE = {
    "i_min": "Williams and Beer, arXiv 1004.2515",
    "mmi": "Barrett, Phys. Rev. E 91, 052802 (2015)",
}
_SAY = {
    "redundancy": "Information that firing on the image and firing on the caption share about the target",
    "unique_image": "Information about the target in firing on the image alone",
    "unique_text": "Information about the target in firing on the caption alone",
    "synergy": "Information about the target that only image and caption firing together give",
}


class InformationMetric(MetricOfParts):
    """Partial information decomposition of (fires on the image, fires on the caption) about each target of the pairs.

    Columns of further targets end in the target's name. The control shuffles the target over the pairs 20 times; given
    the counts, a shuffle is a draw from the hypergeometric distribution.

    Args:
        redundancy: definition of the redundancy in the columns, "i_min" or "mmi"; the table has both.
    """

    name: ClassVar[str] = "information"
    needs: ClassVar[frozenset[Need]] = frozenset({"pairs", "targets"})

    def __init__(self, redundancy: str = "i_min") -> None:
        if redundancy not in REDUNDANCIES:
            raise unknown_name("redundancy", redundancy, REDUNDANCIES)
        self._redundancy = redundancy
        self._every = Sums()
        self._true = PartPerKey(_no_sums)

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        _add(self._every, batch.codes, np.ones(len(batch.codes), dtype=bool))
        for target, holds in batch.targets.items():
            _add(self._true[target], batch.codes, holds)

    def parts(self) -> dict[str, Mergeable]:
        """Return the counts over all pairs, and over the pairs for which each target is true."""
        return {"every": self._every, "true": self._true}

    def findings(self, decoder: Float[Tensor, "d_sae d_in"] | None) -> Findings:
        """Return the parts as columns, and a table of their means over living latents with the control."""
        columns: dict[str, np.ndarray] = {}
        schema: list[Column] = []
        rows: list[dict[str, Any]] = []
        for place, target in enumerate(self._true):
            counts = self.counts(target)
            living = counts[:, :1, :1].sum((1, 2, 3)) < counts.sum((1, 2, 3))
            suffix = f"_{target}" if place else ""
            by_rule = {rule: decompose(counts, redundancy=rule) for rule in REDUNDANCIES}
            controls = [decompose(c, redundancy=self._redundancy) for c in _shuffled(counts)]
            control = np.mean([_total(atoms) for atoms in controls], axis=0)
            found = {f"pid_{name}{suffix}": value for name, value in vars(by_rule[self._redundancy]).items()}
            found[f"pid_shuffled{suffix}"] = control
            columns |= {name: np.where(living, value, np.nan) for name, value in found.items()}
            schema += self._columns(target, suffix)
            rows += [_row(target, rule, [atoms], living) for rule, atoms in by_rule.items()]
            rows.append(_row(target, f"{self._redundancy}, target shuffled", controls, living))
        if not rows:
            return Findings(notes=("Information was not decomposed, because the pairs have no target.",))
        figures = {t: float(self._true[t]["pairs"]) / float(self._every["pairs"]) for t in self._true}
        tables = {"Information of image and caption about a target, mean bits per living latent": rows}
        return Findings(columns, tuple(schema), {"targets": figures}, tables)

    def counts(self, target: str) -> Float[np.ndarray, "latent 2 2 2"]:
        """Return the number of pairs with each combination of (fires on the image, fires on the caption, target)."""
        every, true = _cells(self._every), _cells(self._true[target])
        return np.stack([every - true, true], axis=-1)

    def _columns(self, target: str, suffix: str) -> list[Column]:
        nan, source = "never fires", _SOURCE[self._redundancy]
        atoms = [
            Column(f"pid_{n}{suffix}", f"{say}: {target}.", "bits", "[0, 1]", nan, source) for n, say in _SAY.items()
        ]
        about = f"Control: the sum of the four parts with the target, {target}, shuffled over the pairs."
        return [*atoms, Column(f"pid_shuffled{suffix}", about, "bits", "[0, 1]", nan)]


def _no_sums(target: str) -> Sums:
    return Sums()


def _add(sums: Sums, codes: PairedCodes, chosen: Bool[np.ndarray, " row"]) -> None:
    """Add the number of chosen pairs and, per latent, of those that fire on the image, on the caption, on both."""
    joint = codes.joint
    of_chosen = torch.as_tensor(chosen, device=joint.rows.device)[joint.rows]
    image, text = (joint.image > 0) & of_chosen, (joint.text > 0) & of_chosen
    sums.add("pairs", int(chosen.sum()))
    for name, fires in (("image", image), ("text", text), ("both", image & text)):
        sums.add_per_latent(name, joint.latents, fires, codes.d_sae)


def _cells(sums: Sums) -> Float[np.ndarray, "latent 2 2"]:
    n = float(sums["pairs"])
    image, text, both = (sums[name].double().cpu().numpy() for name in ("image", "text", "both"))
    silent = n - image - text + both
    return np.stack([np.stack([silent, text - both], -1), np.stack([image - both, both], -1)], 1)


def _shuffled(counts: Float[np.ndarray, "latent 2 2 2"]) -> list[Float[np.ndarray, "latent 2 2 2"]]:
    """Return the counts for shuffled targets, one per repetition of the control."""
    cells = counts.sum(-1).reshape(len(counts), 4).astype(np.int64)
    n_true = counts[..., 1].sum((1, 2)).astype(np.int64)
    out = []
    for shuffle in range(SHUFFLES):
        generator = np.random.default_rng([_SEED, shuffle])
        true, left, to_deal = np.zeros_like(cells), cells.sum(1), n_true.copy()
        for cell in range(4):
            left = left - cells[:, cell]
            true[:, cell] = generator.hypergeometric(cells[:, cell], left, to_deal)
            to_deal = to_deal - true[:, cell]
        dealt = np.stack([cells - true, true], -1).reshape(counts.shape)
        out.append(dealt.astype(np.float64))
    return out


def _total(atoms: Atoms) -> np.ndarray:
    return np.asarray(atoms.redundancy + atoms.unique_image + atoms.unique_text + atoms.synergy)


def _row(target: str, rule: str, drawn: list[Atoms], living: Bool[np.ndarray, " d_sae"]) -> dict[str, Any]:
    means = (
        {name: [np.asarray(getattr(a, name))[living].mean() for a in drawn] for name in _SAY} if living.any() else {}
    )
    return {"target": target, "redundancy": rule, **{f"{n} (bits)": float(np.mean(v)) for n, v in means.items()}}
