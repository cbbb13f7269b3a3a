"""The manifest of a cache (its plan), and the record of each shard (its files)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cliplens.errors import DamagedError, InputError, MismatchError
from cliplens.files import read_json, sha256_of, write_json
from cliplens.store.arrow import Written
from cliplens.store.plan import FORMAT, Plan

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ShardRecord:
    """The content of one shard. It is written last, so a shard with a record is complete."""

    shard: int
    rows: int
    truncated: int
    bad: tuple[tuple[int, str], ...]
    """Index and reason of each bad pair."""
    files: Mapping[str, Written]
    """Size and hash of each file, by its path relative to the cache."""
    plan: str | None = None
    """Hash of the plan; None in caches of version 0.1.0."""

    def save(self, folder: Path) -> None:
        """Write the record."""
        write_json(record_path(folder, self.shard), asdict(self))

    @classmethod
    def load(cls, folder: Path, shard: int) -> "ShardRecord | None":
        """Return the record of a shard; None if the shard was not finished.

        Raises:
            DamagedError: the record cannot be read.
        """
        path = record_path(folder, shard)
        if not path.is_file():
            return None
        found = read_json(path)
        try:
            files = {str(name): Written(str(w["sha256"]), int(w["bytes"])) for name, w in found["files"].items()}
            bad = tuple((int(place), str(reason)) for place, reason in found["bad"])
            return cls(int(found["shard"]), int(found["rows"]), int(found["truncated"]), bad, files, found.get("plan"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                expected=f"the record of a shard in {path}",
                found=f"{type(error).__name__}: {error}",
                fix="run the same harvest again: it rewrites this shard only",
            ) from error

    def damage(self, folder: Path, *, by_hash: bool) -> str | None:
        """Return the first damaged or missing file with the reason; None if all files are intact."""
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
    """Return the path of a shard's record."""
    return folder / "shards" / f"{shard:05d}.json"


def shard_name(shard: int, n_shards: int) -> str:
    """Return the file name of a shard, as `datasets` names shards."""
    return f"data-{shard:05d}-of-{n_shards:05d}.arrow"


def read_plan(folder: Path) -> tuple[Plan, bool] | None:
    """Return the plan of the cache in a folder and whether it is complete; None when there is no cache.

    Raises:
        DamagedError: the manifest cannot be read.
        InputError: the format is unknown to this version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or "format" not in found:
        raise DamagedError(expected=f"a manifest in {path}", found="JSON without a format", fix="run the harvest again")
    if found["format"] != FORMAT:
        raise InputError(
            expected=f"a cache of the format {FORMAT!r} in {folder}",
            found=repr(found["format"]),
            fix="harvest again into another folder",
        )
    try:
        return Plan.from_json(found), bool(found["complete"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            expected=f"a whole manifest in {path}", found=f"{type(error).__name__}: {error}", fix="harvest again"
        ) from error


def write_plan(folder: Path, plan: Plan, complete: Mapping[str, Any] | None) -> None:
    """Write the manifest; `complete` holds the totals once every shard is there."""
    write_json(folder / MANIFEST, {**plan.as_json(), "complete": complete is not None, **(complete or {})})


def check_same_plan(folder: Path, there: Plan, asked: Plan) -> None:
    """Check that a folder holds no cache made by another plan.

    Raises:
        MismatchError: it does; the message lists the differences.
    """
    if there.pictures is None:
        asked = replace(asked, pictures=None)  # Older caches do not record how pictures were opened.
    if there.sha256 == asked.sha256:
        return
    old, new = there.as_json(), asked.as_json()
    differs = [f"{k}: {old.get(k)!r} there, {new.get(k)!r} asked" for k in old | new if old.get(k) != new.get(k)]
    raise MismatchError(
        expected=f"a cache in {folder} made by this plan",
        found="; ".join(differs),
        fix="pass another folder, or delete this one",
    )


def check_covers(folder: Path, there: Plan, asked: Plan) -> None:
    """Check that the cache in a folder holds what another plan would read, possibly among other sites.

    Raises:
        MismatchError: a site is missing, or another setting of the plan differs.
    """
    missing = [str(s.site) for s in asked.sites if s not in there.sites]
    if missing:
        raise MismatchError(
            expected=f"activations of {' and '.join(missing)} in {folder}",
            found=f"those of {', '.join(str(s.site) for s in there.sites)}",
            fix="harvest these sites too, or choose a hook that was harvested",
        )
    check_same_plan(folder, there, replace(asked, sites=there.sites, shard_pairs=there.shard_pairs))


def write_totals(path: Path, plan: Plan) -> None:
    """Write the totals, and the files that `datasets` needs into the folder of each site."""
    records = [r for r in (ShardRecord.load(path, n) for n in plan.names) if r is not None]
    if len(records) < plan.n_shards:
        return
    for site in plan.sites:
        folder = path / str(site.site)
        mine = {n: w for r in records for n, w in r.files.items() if n.startswith(f"{site.site}/")}
        names = [shard_name(n, plan.n_shards) for n in plan.names]
        write_json(folder / "dataset_info.json", {"features": site.schema.features})
        write_json(folder / "state.json", _state(plan, names))
        files = {n.rpartition("/")[2]: asdict(w) for n, w in mine.items()}
        write_json(folder / MANIFEST, {**plan.as_json(), "site": str(site.site), "files": files})
    digest = hashlib.sha256()
    for record in records:
        for name, written in sorted(record.files.items()):
            digest.update(f"{name} {written.sha256}\n".encode())
    totals = {
        "rows": sum(r.rows for r in records),
        "truncated": sum(r.truncated for r in records),
        "bad": sum(len(r.bad) for r in records),
        "bytes": sum(w.bytes for r in records for w in r.files.values()),
        "sha256": digest.hexdigest(),
    }
    write_plan(path, plan, totals)


def _state(plan: Plan, names: Sequence[str]) -> Mapping[str, object]:
    empty = ("_format_columns", "_format_type", "_split")
    return {
        "_data_files": [{"filename": n} for n in names],
        "_fingerprint": plan.sha256[:16],
        **dict.fromkeys(empty),
        "_format_kwargs": {},
        "_output_all_columns": False,
    }
