"""The pairs that dictionaries are compared on: the same ones for all, which none was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt64

from cliplens import keys, registry
from cliplens.errors import InputError
from cliplens.records import GroundTruth, PairedActs, Units
from cliplens.run import EMBEDDING, by_modality, samples_of, truth_of, unit, units_of
from cliplens.sites import MODALITIES, Site
from cliplens.statistics import poisson_weights
from cliplens.store import Cache
from cliplens_plugins.comparison.subjects import Subject

_SEED = 71


@dataclass(frozen=True)
class Sample:
    """Rows of the same pairs at the sites of one dictionary, with what judges and the ground truth say about them."""

    raw: PairedActs
    judged: PairedActs
    """Unit-norm embeddings by the judge, or by the model itself without one."""
    truth: GroundTruth | None
    units: Units
    weights: Float[np.ndarray, "row replicate"]
    """Bootstrap weights of each row's picture: Poisson(1), from its key, so equal for all dictionaries."""

    @property
    def pictures(self) -> int:
        """Number of different pictures."""
        return len(np.unique(self.units.images))


class Samples:
    """Reads the sample of each dictionary; dictionaries at one hook share it."""

    def __init__(self, subjects: Sequence[Subject], pairs: int, replicates: int) -> None:
        self._replicates = replicates
        self._caches: dict[str, Cache] = {}
        self._made: dict[tuple[str, ...], Sample] = {}
        self._chosen = self._choose(subjects, pairs)

    def of(self, subject: Subject) -> Sample:
        """Return the sample of a dictionary."""
        basis = subject.basis
        same = tuple(basis[name] for name in ("pairs", "model", "hook", "token", "judge"))
        if same not in self._made:
            self._made[same] = self._read(subject, self._chosen[basis["pairs"]])
        return self._made[same]

    def _cache(self, subject: Subject) -> Cache:
        path = str(subject.run.folder.activations.resolve())
        if path not in self._caches:
            found = Cache.open(subject.run.folder.activations)
            self._caches[path] = found.by_picture(subject.run.pairs.image_ids)
        return self._caches[path]

    def _choose(self, subjects: Sequence[Subject], count: int) -> dict[str, UInt64[np.ndarray, " picture"]]:
        """Return, for each source of pairs, the keys of pictures that every dictionary on it holds out."""
        held: dict[str, np.ndarray] = {}
        for subject in subjects:
            of_pair = np.unique(self._cache(subject).keys)
            of_pair = of_pair[subject.holds_out(of_pair)]
            before = held.get(subject.basis["pairs"])
            held[subject.basis["pairs"]] = of_pair if before is None else np.intersect1d(before, of_pair)
        chosen = {}
        for source, of_pair in held.items():
            if len(of_pair) < 2:
                raise InputError(
                    expected="pictures that none of the dictionaries was trained on",
                    found=f"{len(of_pair)}",
                    fix="compare runs with a larger --held-out",
                )
            chosen[source] = of_pair[np.argsort(keys.hashed(of_pair, _SEED), kind="stable")[:count]]
        return chosen

    def _read(self, subject: Subject, chosen: UInt64[np.ndarray, " picture"]) -> Sample:
        asked, cache = subject.asked, self._cache(subject)

        def keep(of_pair: UInt64[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
            return np.isin(of_pair, chosen)

        raw = _sorted(_joined([*cache.batches(**by_modality(asked.sites), keep=keep)]))
        if asked.judge is None:
            finals = by_modality([Site(side, EMBEDDING) for side in asked.sides])
            final = [unit(b) for b in cache.batches(**finals, keep=keep)]
        else:
            ids = list(dict.fromkeys(raw.ids))
            place = subject.run.pairs.indices(ids)
            pairs = [subject.run.pairs[place[i]] for i in ids]
            shown = samples_of(pairs, raw.image is not None, raw.text is not None)
            final = [registry.judge(asked.judge).embed(*shown, ids)]
        judged = _in_step(_joined(final), raw.ids)
        units = units_of(subject.run.pairs, list(dict.fromkeys(raw.ids)))(raw.ids)
        weights = poisson_weights(units.images, self._replicates)
        return Sample(raw, judged, truth_of(asked.pairs), units, weights)


def _joined(parts: Sequence[PairedActs]) -> PairedActs:
    image, text = ([rows for p in parts if (rows := p.of(m)) is not None] for m in MODALITIES)
    ids = tuple(i for p in parts for i in p.ids)
    return PairedActs(ids, torch.cat(image) if image else None, torch.cat(text) if text else None)


def _sorted(acts: PairedActs) -> PairedActs:
    """Sort by id, so that the rows do not depend on how the activations were stored."""
    order = np.argsort(np.array(acts.ids), kind="stable")
    return _taken(acts, order)


def _in_step(judged: PairedActs, ids: Sequence[str]) -> PairedActs:
    """Repeat the embeddings of each pair for its rows."""
    place: Mapping[str, int] = {pair_id: n for n, pair_id in enumerate(judged.ids)}
    return _taken(judged, np.array([place[i] for i in ids], dtype=np.int64))


def _taken(acts: PairedActs, rows: np.ndarray) -> PairedActs:
    at = torch.as_tensor(rows)
    image, text = (None if (held := acts.of(m)) is None else held[at] for m in MODALITIES)
    return replace(acts, ids=tuple(acts.ids[n] for n in rows), image=image, text=text)
