"""Feed every metric in one pass over the batches, and join their findings in one table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.distributed import gather_objects, is_distributed
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Findings, LatentTable
from cliplens.registry import Plugin
from cliplens.store.memory import trim_memory
from cliplens.tally.reduce import all_reduce_one

_MISSING = {
    "pairs": "both an image and a caption in every pair",
    "judge": "embeddings by a judge",
    "truth": "pairs whose ground truth is known",
    "targets": "something asked about the pairs (a target)",
    "raw": "activations before centring",
}
_LATENT = Column(
    "latent", "Number of the latent: its row in the dictionary's decoder.", unit="index", range="0 .. d_sae-1"
)


@dataclass(frozen=True)
class Tally:
    """The findings of all metrics together."""

    table: LatentTable
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: tuple[dict[str, str], ...] = ()
    """One entry per plugin that failed: `plugin`, `distribution`, `error`."""


def tally(
    batches: Iterable[Batch],
    metrics: Iterable[Metric | tuple[Plugin, Metric]],
    *,
    decoder: Float[Tensor, "d_sae d_in"] | None,
    merge: bool = True,
) -> Tally:
    """Feed every batch to every metric, once, and gather the findings.

    A metric whose needs the batches do not meet is left out, with a note. A metric that fails is left out too, and
    named in `failed` with its distribution and its error; the others go on. Under `torchrun` every process feeds its
    own batches, and all processes get the same result, over all batches.

    Each metric is released when its findings are made, which frees its sums unless the caller holds it.

    Args:
        batches: the batches, read once.
        metrics: metrics, or (plugin, metric) as `cliplens.registry` gives them; an iterator holds none of them.
        decoder: the decoder of the dictionary, for metrics that need it.
        merge: merge the results of all processes; without it a process keeps its own, and may be the only one to call.
    """
    entries = [_Entry.of(m) for m in metrics]
    for batch in batches:
        for entry in entries:
            entry.update(batch)
    if merge:
        _all_reduce_entries(entries)
    return _gathered(entries, decoder)


class _Entry:
    """One metric of a tally, with the plugin it comes from and its outcome."""

    def __init__(self, metric: Metric, plugin: Plugin | None) -> None:
        self.metric: Metric | None = metric
        self.plugin = plugin.name if plugin else metric.name
        self._module, self._plugin = type(metric).__module__, plugin
        self.error: str | None = None
        self.missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Metric | tuple[Plugin, Metric]) -> "_Entry":
        return cls(given[1], given[0]) if isinstance(given, tuple) else cls(given, None)

    @property
    def distribution(self) -> str:
        if self._plugin:
            return self._plugin.distribution
        package = self._module.partition(".")[0]
        return packages_distributions().get(package, ["an unknown distribution"])[0]

    @property
    def active(self) -> bool:
        return self.error is None and not self.missing

    def update(self, batch: Batch) -> None:
        metric = self.metric
        if metric is not None and self.active:
            self.missing = frozenset(metric.needs) - _carried(batch)
            if self.active:
                self._attempt(lambda: metric.update(batch))

    def findings(self, decoder: Tensor | None) -> Findings | None:
        """Return the findings of the metric, which is released."""
        found: list[Findings] = []
        metric, self.metric = self.metric, None
        if metric is not None and self.active:
            self._attempt(lambda: found.append(metric.findings(decoder)))
        return found[0] if found else None

    def fail(self, error: str) -> None:
        self.error = self.error or error

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # A plugin can raise any error; the other metrics continue.
            self.fail(f"{type(error).__name__}: {error}")


def _carried(batch: Batch) -> frozenset[str]:
    has = {
        "pairs": batch.codes.image is not None and batch.codes.text is not None,
        "judge": bool(batch.judged),
        "truth": batch.truth is not None,
        "targets": bool(batch.targets),
        "raw": batch.raw is not None,
    }
    return frozenset(name for name, present in has.items() if present)


def _gathered(entries: Sequence[_Entry], decoder: Tensor | None) -> Tally:
    table = LatentTable({})
    if decoder is not None:
        table = table.with_columns({"latent": np.arange(len(decoder))}, [_LATENT])
    figures: dict[str, Any] = {}
    tables: dict[str, Sequence[Mapping[str, Any]]] = {}
    notes: list[str] = []
    for entry in entries:
        trim_memory()  # of the metric before, whose small pieces would stay
        found = entry.findings(decoder)
        if found is None:
            continue
        taken = set(found.columns) & set(table)
        if taken:
            entry.fail(f"its columns {sorted(taken)} are already given by another metric")
            continue
        try:
            table = table.with_columns(found.columns, found.schema)
        except InputError as error:
            entry.fail(str(error))
            continue
        figures |= found.figures
        tables |= found.tables
        notes += found.notes
    if "latent" not in table and len(table):
        table = LatentTable({"latent": np.arange(len(table)), **table.columns}, {"latent": _LATENT, **table.schema})
    notes += [_skipped(entry) for entry in entries if entry.missing]
    failed = tuple(
        {"plugin": e.plugin, "distribution": e.distribution, "error": e.error} for e in entries if e.error is not None
    )
    return Tally(table, figures, tables, tuple(notes), failed)


def _skipped(entry: _Entry) -> str:
    known = ", ".join(sorted(_MISSING))
    wanted = " and ".join(
        _MISSING.get(need, f"{need!r}, which is no need of metrics ({known})") for need in sorted(entry.missing)
    )
    return f"The metric {entry.plugin!r} was left out: it needs {wanted}."


def _all_reduce_entries(entries: Sequence[_Entry]) -> None:
    if not is_distributed():
        return
    for entry in entries:
        for error, missing in gather_objects((entry.error, tuple(sorted(entry.missing)))):
            if error is not None:
                entry.fail(error)
            entry.missing |= frozenset(missing)
        if entry.active and entry.metric is not None:
            all_reduce_one(entry.metric)
