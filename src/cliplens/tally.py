"""One pass over the codes feeds every metric; what each has seen merges, on one machine or on many.

`Sums` and `TopSamples` are the two states most metrics are made of: sums that add up, and the strongest samples of each
latent. Neither depends on the order in which batches come or are merged, beyond the rounding of float64.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cliplens.contracts import Metric
from cliplens.errors import InputError
from cliplens.records import Batch, Column, Exemplars, Findings, LatentTable, Pair, SparseCodes
from cliplens.registry import Plugin
from cliplens.sites import Modality

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
    """What all metrics found together."""

    table: LatentTable
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: tuple[dict[str, str], ...] = ()
    """One entry per plugin that failed: `plugin`, `distribution`, `error`."""


def tally(
    batches: Iterable[Batch],
    metrics: Sequence[Metric | tuple[Plugin, Metric]],
    *,
    decoder: Float[Tensor, "d_sae d_in"] | None,
) -> Tally:
    """Show every batch to every metric, once, and gather what they found.

    A metric whose needs the batches do not meet is left out, with a note. One that fails is left out too, named in
    `failed` with its distribution and its error; the others go on. Under `torchrun` every process shows its own batches
    and all of them get the same, whole result.
    """
    entries = [_Entry.of(m) for m in metrics]
    for batch in batches:
        for entry in entries:
            entry.update(batch)
    _all_reduce_entries(entries)
    return _gathered(entries, decoder)


class _Entry:
    """One metric of a tally, with whose it is and what became of it."""

    def __init__(self, metric: Metric, plugin: Plugin | None) -> None:
        self.metric, self._plugin = metric, plugin
        self.error: str | None = None
        self.missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Metric | tuple[Plugin, Metric]) -> "_Entry":
        return cls(given[1], given[0]) if isinstance(given, tuple) else cls(given, None)

    @property
    def plugin(self) -> str:
        return self._plugin.name if self._plugin else self.metric.name

    @property
    def distribution(self) -> str:
        if self._plugin:
            return self._plugin.distribution
        package = type(self.metric).__module__.partition(".")[0]
        return packages_distributions().get(package, ["an unknown distribution"])[0]

    @property
    def active(self) -> bool:
        return self.error is None and not self.missing

    def update(self, batch: Batch) -> None:
        if self.active:
            self.missing = frozenset(self.metric.needs) - _carried(batch)
        if self.active:
            self._attempt(lambda: self.metric.update(batch))

    def findings(self, decoder: Tensor | None) -> Findings | None:
        found: list[Findings] = []
        if self.active:
            self._attempt(lambda: found.append(self.metric.findings(decoder)))
        return found[0] if found else None

    def fail(self, error: str) -> None:
        self.error = self.error or error

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # a stranger's code: whatever it raises, the others must go on
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
    wanted = " and ".join(_MISSING[need] for need in sorted(entry.missing))
    return f"The metric {entry.plugin!r} was left out: it needs {wanted}."


class Sums:
    """Named tensors that only ever grow by addition: the state of a metric that merges. Sums float64, counts int64."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor | float | int) -> None:
        """Add to the sum of that name, which starts at zero."""
        term = torch.as_tensor(value)
        term = term.to(torch.float64 if term.is_floating_point() else torch.int64)
        if name in self._held:
            self._held[name] += term
        else:
            self._held[name] = term.clone()

    def add_per_latent(self, name: str, latents: Int64[Tensor, " firing"], values: Tensor | None, d_sae: int) -> None:
        """Add the firings' values to a sum per latent; their count where None; how many are true where bool."""
        if values is not None and values.dtype == torch.bool:
            latents, values = latents[values], None
        if values is None:
            self.add(name, torch.bincount(latents, minlength=d_sae))
            return
        # Where nothing fires, bincount forgets that the weights were floating.
        self.add(name, torch.bincount(latents, values.double(), minlength=d_sae).double())

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def get(self, name: str, default: Tensor) -> Tensor:
        """The sum of that name, or `default` where nothing was added."""
        return self._held.get(name, default)

    def names(self) -> tuple[str, ...]:
        """What has been added to."""
        return tuple(self._held)

    def merge(self, other: "Sums") -> None:
        """Take in another's sums."""
        for name, value in other._held.items():
            self.add(name, value)

    def state(self) -> dict[str, Tensor]:
        """A copy of every sum."""
        return {name: value.clone() for name, value in self._held.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        self._held = {name: value.clone() for name, value in state.items()}


def _strongest_row_each(
    ids: Sequence[str], sample: np.ndarray, latents: np.ndarray, values: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Of firings of one latent on several rows of one pair, the strongest alone."""
    place: dict[str, int] = {}
    pair = np.array([place.setdefault(i, len(place)) for i in ids])[sample]
    order = np.lexsort((-values, latents, pair))
    _, first = np.unique(np.stack([pair, latents])[:, order], axis=1, return_index=True)
    kept = order[first]
    return list(place), pair[kept], latents[kept], values[kept]


class TopSamples:
    """The strongest samples of each latent in one modality, ties broken by pair id; mergeable, of constant size.

    Firings that can no longer be among those kept are dropped at once; the rest wait in a buffer that is cleared out
    whenever it has grown as large as the table itself.

    Args:
        modality: whose codes to look at.
        top: how many samples to keep of a latent, at most.
        most: how many to keep of each latent, from the number of latents; None keeps `top` of all.
    """

    def __init__(
        self, modality: Modality, top: int = 20, most: Callable[[int], Int64[np.ndarray, " d_sae"]] | None = None
    ) -> None:
        self.modality = modality
        self.top = top
        self.d_sae = 0
        self._most_of = most
        self._most = np.zeros(0, np.int64)
        self._ids: list[str] = []
        self._latents = np.zeros(0, np.int64)
        self._values = np.zeros(0)
        self._sample = np.zeros(0, np.int64)
        self._floor = np.zeros(0)
        """The weakest value each latent still keeps; 0 while it keeps fewer than it may."""
        self._beside: list[Tensor] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._n_waiting = 0

    def update(self, batch: Batch) -> None:
        """Take one batch in."""
        codes = batch.codes.of(self.modality)
        if codes is not None:
            self.add(batch.ids, codes)

    def add(self, ids: Sequence[str], codes: SparseCodes, beside: Float[Tensor, "row d"] | None = None) -> None:
        """Take in codes of the pairs `ids`; what stands `beside` a sample is kept with it.

        A pair with many rows, one per patch or token, counts by its strongest; the same stands beside all of them.
        """
        self._sized(codes.d_sae)
        latents, values = codes.latents.cpu().numpy(), codes.values.detach().double().cpu().numpy()
        kept = (values > 0) & (values >= self._floor[latents])
        latents, values, of_firing = latents[kept], values[kept], codes.rows.cpu().numpy()[kept]
        used = np.zeros(len(ids), dtype=bool)
        used[of_firing] = True
        rows, sample = np.flatnonzero(used), (np.cumsum(used) - 1)[of_firing]
        named = [ids[r] for r in rows.tolist()]
        row_of = dict(zip(named, rows.tolist(), strict=True))
        if len(row_of) < len(named):
            named, sample, latents, values = _strongest_row_each(named, sample, latents, values)
        some = None if beside is None else beside[torch.tensor([row_of[name] for name in named], dtype=torch.int64)]
        self._wait(named, latents, values, sample, some)

    def merge(self, other: "TopSamples") -> None:
        """Take in what another instance has seen."""
        other._settle()
        if other.d_sae:
            self._sized(other.d_sae)
            beside = other._beside[0] if other._beside else None
            self._wait(other._ids, other._latents, other._values, other._sample, beside)

    def state(self) -> dict[str, Tensor]:
        """All that was seen, as tensors; ids as UTF-8 bytes with their ends."""
        self._settle()
        encoded = [i.encode() for i in self._ids]
        held = {
            "d_sae": torch.tensor(self.d_sae),
            "ids": torch.frombuffer(bytearray(b"".join(encoded) or b" "), dtype=torch.uint8).clone(),
            "ends": torch.tensor(np.cumsum([len(e) for e in encoded], dtype=np.int64)),
            "latents": torch.tensor(self._latents),
            "values": torch.tensor(self._values),
            "sample": torch.tensor(self._sample),
        }
        return {**held, "beside": self._beside[0].clone()} if self._beside else held

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave."""
        fresh = TopSamples(self.modality, self.top, self._most_of)
        if int(state["d_sae"]):
            raw, ends = state["ids"].cpu().numpy().tobytes(), state["ends"].tolist()
            ids = [raw[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
            fresh._sized(int(state["d_sae"]))
            latents, values, sample = (state[name].cpu().numpy() for name in ("latents", "values", "sample"))
            fresh._wait(ids, latents, values, sample, state["beside"].clone() if "beside" in state else None)
        self.__dict__.update(fresh.__dict__)

    @property
    def ids(self) -> tuple[str, ...]:
        """The pairs that are among the top samples of any latent, sorted by id."""
        self._settle()
        return tuple(self._ids)

    @property
    def beside(self) -> Float[Tensor, "sample d"] | None:
        """What stands beside the samples `ids`, in that order; None where nothing did."""
        self._settle()
        return self._beside[0] if self._beside else None

    def table(self) -> Int64[np.ndarray, "d_sae top"]:
        """For each latent the places of its samples in `ids`, strongest first; -1 where fewer fire."""
        self._settle()
        at = np.full((self.d_sae, self.top), -1, np.int64)
        at[self._latents, _rank_within(self._latents)] = self._sample
        return at

    def exemplars(self, pairs: Mapping[str, Pair]) -> Exemplars:
        """The samples kept, strongest first, with their pairs looked up by id."""
        at = self.table()
        values = np.zeros((self.d_sae, self.top))
        values[self._latents, _rank_within(self._latents)] = self._values
        return Exemplars(self.modality, tuple(pairs[i] for i in self._ids), at, values)

    def _sized(self, d_sae: int) -> None:
        if self.d_sae not in (0, d_sae):
            raise InputError(
                expected=f"codes of one dictionary ({self.d_sae} latents)",
                found=f"codes over {d_sae}",
                fix="keep a TopSamples per dictionary",
            )
        if not self.d_sae:
            self.d_sae, self._floor = d_sae, np.zeros(d_sae)
            self._most = self._most_of(d_sae) if self._most_of else np.full(d_sae, self.top)

    def _wait(
        self,
        ids: Sequence[str],
        latents: np.ndarray,
        values: np.ndarray,
        sample: np.ndarray,
        beside: Tensor | None = None,
    ) -> None:
        self._waiting.append((latents, values, sample + len(self._ids)))
        self._ids += ids
        if beside is not None and len(ids):
            self._beside.append(beside)
        self._n_waiting += len(latents)
        if self._n_waiting > max(int(self._most.sum()), 1 << 16):
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        parts = [(self._latents, self._values, self._sample), *self._waiting]
        latents, values, sample = (np.concatenate(column) for column in zip(*parts, strict=True))
        names, first, place = np.unique(np.array(self._ids, dtype=np.str_), return_index=True, return_inverse=True)
        sample = place[sample]
        order = _by_strength(latents, values, sample)
        latents = latents[order]
        kept = _rank_within(latents) < self._most[latents]
        self._latents, order = latents[kept], order[kept]
        self._values = values[order]
        still = np.zeros(len(names), dtype=bool)
        still[sample[order]] = True
        used, self._sample = np.flatnonzero(still), (np.cumsum(still) - 1)[sample[order]]
        self._ids = names[used].tolist()
        if self._beside:
            self._beside = [torch.cat(self._beside)[torch.as_tensor(first[used])]]
        last = np.flatnonzero(_rank_within(self._latents) == self._most[self._latents] - 1)
        self._floor[self._latents[last]] = self._values[last]
        self._waiting, self._n_waiting = [], 0


def _by_strength(
    latents: Int64[np.ndarray, " n"], values: Float[np.ndarray, " n"], place: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """The order by latent, the strongest first, equals by place: as `lexsort` has it, at a third of its cost."""
    order = np.argsort(-values)
    small = latents.astype(np.uint16) if len(latents) and latents.max() < 1 << 16 else latents  # sorted by digits
    order = order[np.argsort(small[order], kind="stable")]
    ahead, behind = order[:-1], order[1:]
    same = (latents[ahead] == latents[behind]) & (values[ahead] == values[behind])
    if same.any():
        tied = np.flatnonzero(np.r_[False, same] | np.r_[same, False])
        some = order[tied]
        order[tied] = some[np.lexsort((place[some], -values[some], latents[some]))]
    return order


def _rank_within(groups: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """How many entries of the same group come before each entry; `groups` is sorted."""
    n = len(groups)
    first = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if n else np.zeros(0, np.int64)
    return np.arange(n) - np.repeat(first, np.diff(np.r_[first, n]))


@runtime_checkable
class Stateful(Protocol):
    """What a metric is made of: it gives its state as tensors and continues from it."""

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


def joined_states(parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """The states of several parts as one, its tensors named `part.name`."""
    return {f"{part}.{name}": t for part, held in parts.items() for name, t in held.state().items()}


def load_joined(parts: Mapping[str, Stateful], state: Mapping[str, Tensor]) -> None:
    """Every part continues from its share of what `joined_states` gave."""
    for part, held in parts.items():
        start = f"{part}."
        held.load_state({name.removeprefix(start): t for name, t in state.items() if name.startswith(start)})


Mergeable = Metric | TopSamples


def all_reduce(seen: Sequence[Mergeable]) -> None:
    """Give every process of a `torch.distributed` group all that any of them has seen, merged in the order of ranks.

    Every process ends with bit for bit the same states. Does nothing where no group was started.

    Args:
        seen: metrics and top samples, the same ones in the same order in every process.
    """
    if not _distributed():
        return
    for held in seen:
        _all_reduce_one(held)


def _all_reduce_one(held: Mergeable) -> None:
    own = held.state()
    for rank in range(torch.distributed.get_world_size()):
        sent = _broadcast(own, rank)
        if rank == 0:
            held.load_state(sent)
        else:
            other = copy.deepcopy(held)
            other.load_state(sent)
            held.merge(other)  # type: ignore[arg-type]


def _broadcast(state: dict[str, Tensor], source: int) -> dict[str, Tensor]:
    """One rank's state, on every rank: names, shapes and dtypes first, then tensor by tensor."""
    device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else torch.device("cpu")
    mine = torch.distributed.get_rank() == source
    header = [[(name, tuple(t.shape), t.dtype) for name, t in state.items()] if mine else None]
    torch.distributed.broadcast_object_list(header, src=source, device=device)
    sent = {}
    for name, shape, dtype in header[0] or ():
        buffer = state[name].to(device).contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
        torch.distributed.broadcast(buffer, src=source)
        sent[name] = buffer.to(state[name].device if mine else "cpu")
    return sent


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _all_reduce_entries(entries: Sequence[_Entry]) -> None:
    if not _distributed():
        return
    for entry in entries:
        outcomes: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(outcomes, (entry.error, tuple(sorted(entry.missing))))
        for error, missing in outcomes:
            if error is not None:
                entry.fail(error)
            entry.missing |= frozenset(missing)
        if entry.active:
            _all_reduce_one(entry.metric)


def shards(items: Iterable[Any]) -> Iterator[Any]:
    """Every n-th item, n processes in all: this process's share. All of them where no group was started."""
    if not _distributed():
        yield from items
        return
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    yield from (item for place, item in enumerate(items) if place % world == rank)
