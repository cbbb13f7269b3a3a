"""What a cache says of itself: the plan it was made by, and what lies in each shard."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from cliplens.errors import DamagedError, InputError, MismatchError
from cliplens.files import read_json, write_json
from cliplens.keys import hashed
from cliplens.records import ModelIdentity
from cliplens.sites import Site
from cliplens.store.arrow import ShardSchema, Written, sha256_of

FORMAT = "cliplens-activations-1"
MANIFEST = "manifest.json"
SHUFFLES = ("all", "local", "none")


@dataclass(frozen=True)
class SitePlan:
    """A site and the form of its shard files."""

    site: Site
    form: ShardSchema
    token: str
    """What was chosen: cls, eot, single (the hook has one position), mean, patches or all."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a cache's bytes. Two caches with equal plans are equal."""

    model: ModelIdentity
    pairs: str
    pairs_sha256: str
    n_pairs: int
    sites: tuple[SitePlan, ...]
    token: str
    dtype: str
    compute: str
    """How the model ran: its dtype, then options such as autocast."""
    batch_size: int
    shard_pairs: int
    shuffle: str
    """"all": one permutation of all pairs. "local": shards in order, pairs permuted in each. "none": as they come."""
    seed: int

    @property
    def n_shards(self) -> int:
        """Number of shards, the last one possibly smaller."""
        return -(-self.n_pairs // self.shard_pairs)

    @property
    def names(self) -> range:
        """The shards' numbers."""
        return range(self.n_shards)

    @property
    def bytes_per_pair(self) -> int:
        """What a pair takes on disk, all sites and its id together."""
        return sum(s.schema.bytes_per_pair for s in self.sites) + 64

    def pairs_in(self, shard: int) -> int:
        """Number of pairs a shard is made of, bad ones included."""
        return min(self.shard_pairs, self.n_pairs - shard * self.shard_pairs)

    def places(self, shard: int) -> Int64[np.ndarray, " pair"]:
        """Which pairs a shard holds, in its order."""
        here = shard * self.shard_pairs + np.arange(self.pairs_in(shard))
        if self.shuffle == "all":
            return self._permutation[here]
        return here[_order(here, self.seed)] if self.shuffle == "local" else here

    @cached_property
    def _permutation(self) -> Int64[np.ndarray, " pair"]:
        return _order(np.arange(self.n_pairs), self.seed)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        sites = [{"site": str(s.site), "folder": str(s.site), "token": s.token, **asdict(s.schema)} for s in self.sites]
        out = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {"format": FORMAT, **out, "model": asdict(self.model), "sites": sites}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Plan":
        """The plan `as_json` wrote."""
        content = {k: v for k, v in found.items() if k in cls.__dataclass_fields__}
        sites = tuple(
            SitePlan(
                Site.parse(s["site"]), ShardSchema(**{k: s[k] for k in ShardSchema.__dataclass_fields__}), s["token"]
            )
            for s in found["sites"]
        )
        return cls(**{**content, "model": ModelIdentity(**found["model"]), "sites": sites})

    @property
    def sha256(self) -> str:
        """Hash of the plan."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()


def _order(places: Int64[np.ndarray, " pair"], seed: int) -> Int64[np.ndarray, " pair"]:
    return np.argsort(hashed(places.astype(np.uint64), seed), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class ShardRecord:
    """What lies in one shard; written last, so that a shard with a record is whole."""

    shard: int
    rows: int
    truncated: int
    bad: tuple[tuple[int, str], ...]
    """Place in the pairs, and reason, of each pair that was left out."""
    files: Mapping[str, Written]
    """File, relative to the cache -> what was written."""

    def save(self, folder: Path) -> None:
        """Write the record."""
        write_json(record_path(folder, self.shard), asdict(self))

    @classmethod
    def load(cls, folder: Path, shard: int) -> "ShardRecord | None":
        """The record of a shard; None when the shard was never finished."""
        path = record_path(folder, shard)
        if not path.is_file():
            return None
        found = read_json(path)
        files = {name: Written(**w) for name, w in found["files"].items()}
        bad = tuple((int(p), str(r)) for p, r in found["bad"])
        return cls(found["shard"], found["rows"], found["truncated"], bad, files)

    def damage(self, folder: Path, *, by_hash: bool) -> str | None:
        """The first file that is not what was written, and why; None when all are."""
        for name, written in self.files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            size = path.stat().st_size
            if size != written.bytes:
                return f"{name} has {size} bytes, {written.bytes} were written"
            if by_hash and sha256_of(path) != written.sha256:
                return f"{name} was altered since it was written"
        return None


def record_path(folder: Path, shard: int) -> Path:
    """Where a shard's record lies."""
    return folder / "shards" / f"{shard:05d}.json"


def shard_name(shard: int, n_shards: int) -> str:
    """A shard's file name, the one `datasets` would give it."""
    return f"data-{shard:05d}-of-{n_shards:05d}.arrow"


def read_plan(folder: Path) -> tuple[Plan, bool] | None:
    """The plan of the cache in a folder and whether it is complete; None when there is no cache.

    Raises:
        DamagedError: the manifest is not one.
        InputError: it is of a format this version does not know.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(
            expected=f"a cache of the format {FORMAT!r} in {folder}",
            found=repr(found.get("format") if isinstance(found, dict) else found),
            fix="harvest again into another folder",
        )
    try:
        return Plan.from_json(found), bool(found["complete"])
    except (KeyError, TypeError) as error:
        raise DamagedError(
            expected=f"a whole manifest in {path}", found=f"{type(error).__name__}: {error}", fix="harvest again"
        ) from error


def write_plan(folder: Path, plan: Plan, complete: Mapping[str, Any] | None) -> None:
    """Write the manifest; `complete` holds the totals once every shard is there."""
    write_json(folder / MANIFEST, {**plan.as_json(), "complete": complete is not None, **(complete or {})})


def refuse_other(folder: Path, there: Plan, asked: Plan) -> None:
    """Stop when a folder holds a cache made by another plan.

    Raises:
        MismatchError: says what differs.
    """
    if there.sha256 == asked.sha256:
        return
    old, new = there.as_json(), asked.as_json()
    differs = [f"{k}: {old[k]!r} there, {new[k]!r} asked" for k in old if old[k] != new[k]]
    raise MismatchError(
        expected=f"the cache in {folder} to be of this very harvest",
        found="; ".join(differs),
        fix="give another folder, or delete this one",
    )
