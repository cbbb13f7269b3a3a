"""Check every file of a run folder against its recorded hash, and find the command that repairs it."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from cliplens.errors import CliplensError
from cliplens.faults import in_words
from cliplens.files import read_json
from cliplens.run.remedies import resume_command
from cliplens.run.steps import LONG, NAME, RECORDS, SETTINGS, STEPS, TRAIN, StepLog
from cliplens.run.sweepfolder import SweepFolder
from cliplens.runfolder import RunFolder
from cliplens.store.manifest import ShardRecord, read_plan

_EARLIER = {"dictionary": "an earlier dictionary", "names": "earlier names"}


@dataclass(frozen=True)
class Verified:
    """The result of checking one file."""

    name: str
    problem: str | None
    """The fault of the file; None if it is unaltered."""
    known: bool = True
    """Whether its hash was recorded; otherwise the file was only parsed."""
    fix: str = ""
    """The command that makes the file again, if it differs from that of `resume_command`."""


def verify(folder: RunFolder) -> list[Verified]:
    """Check all files of a run. The bytes of each file are compared with the recorded hash.

    Files without a recorded hash (of folders that version 0.1.0 made) are only parsed.
    """
    found = {one.name: one for one in _parsed(folder)}
    found |= {one.name: one for one in _thumbnails(folder)}
    found |= {one.name: one for one in _shards(folder)}
    for one in _recorded(folder):
        before = found.get(one.name)
        found[one.name] = before if before and before.problem and not one.problem and before.known else one
    return sorted(found.values(), key=lambda one: one.name)


def verify_sweep(folder: SweepFolder) -> list[Verified]:
    """Check all files of a sweep: its shared activations once, then every run of it. One command repairs them all."""
    fix = folder.command()
    root = RunFolder(folder.path)
    found = [Verified("sweep.toml", None, known=False), *_shards(root)]
    for name in folder.names:
        run = folder.run(name)
        if not run.toml.exists():
            found.append(Verified(f"{name}/run.toml", "missing", known=False))
            continue
        found += [replace(one, name=f"{name}/{one.name}") for one in verify(run) if not _is_shard(one.name)]
    return [replace(one, fix=one.fix or fix) if one.problem else one for one in found]


def _is_shard(name: str) -> bool:
    return name.startswith("activations/")


def fixes(folder: RunFolder, checked: Sequence[Verified]) -> list[str]:
    """Return the commands that make missing and damaged files again, in the order in which to enter them."""
    bad = [one for one in checked if one.problem]
    own = [one.fix for one in bad if one.fix]
    if len(own) == len(bad):
        return list(dict.fromkeys(own))
    seconds = StepLog(folder).seconds.get(TRAIN.name, 0.0)
    hours = seconds > LONG and any(one.name.startswith("sae/") for one in bad)
    return list(dict.fromkeys([resume_command(folder) + (" --redo" if hours else ""), *own]))


def _recorded(folder: RunFolder) -> Iterator[Verified]:
    """Check the files whose hashes are in `steps.json`; in a folder that was recorded as one, every file."""
    log = StepLog(folder)
    if log.damaged:
        yield Verified("steps.json", log.damaged)
    elif log.whole:
        yield Verified("steps.json", None)
    elif log.legacy and _has_records(folder):
        yield Verified("steps.json", "missing")
    made = {"dictionary": TRAIN.name, "names": NAME.name}
    now = {given: log.records[step].fingerprint for given, step in made.items() if step in log.records}
    for step, record in log.records.items():
        known = step in (SETTINGS, *(s.name for s in STEPS))
        fix = "" if known else _again(folder, str(record.options.get("command", "")))
        wrong = dict(record.problems(folder.path))
        older = [given for given, hashed in now.items() if record.inputs.get(given, hashed) != hashed]
        stale = f"made of {_EARLIER[older[0]]} of this run" if older and not known else None
        for name in record.outputs:
            yield Verified(name, wrong.get(name) or stale, fix=fix)
            if name.endswith("/") and not wrong.get(name):
                inside = (p for p in (folder.path / name).rglob("*") if p.is_file() and not p.name.startswith("."))
                yield from (Verified(p.relative_to(folder.path).as_posix(), stale, fix=fix) for p in inside)


def _has_records(folder: RunFolder) -> bool:
    """Whether run.toml says that steps were recorded; version 0.1.0 recorded none."""
    try:
        return RECORDS in folder.read_settings()
    except (OSError, CliplensError):
        return False


def _again(folder: RunFolder, command: str) -> str:
    """Return the recorded command, with the path of the run folder in place of RUN."""
    return shlex.join(str(folder.path) if word == "RUN" else word for word in shlex.split(command))


def _shards(folder: RunFolder) -> Iterator[Verified]:
    try:
        found = read_plan(folder.activations)
    except CliplensError as error:
        yield Verified("activations/manifest.json", error.found)
        return
    for shard in found[0].names if found else ():
        record_name = f"activations/shards/{shard:05d}.json"
        try:
            record = ShardRecord.load(folder.activations, shard)
        except CliplensError as error:
            yield Verified(record_name, error.found)
            continue
        if record is None:
            yield Verified(record_name, "missing")
            continue
        damage = record.damage(folder.activations, by_hash=True)
        for name in record.files:
            yield Verified(f"activations/{name}", damage if damage and damage.startswith(name) else None)


def _thumbnails(folder: RunFolder) -> Iterator[Verified]:
    """Check thumbnails, which have a hash of their content in their names and are listed in the exemplars' table."""
    table = folder.exemplars / "exemplars.parquet"
    try:
        named = set(pq.read_table(table, columns=["image"]).column("image").to_pylist()) - {None}
    except Exception:  # `_parsed` reports what is wrong with the table
        named = set()
    for name in sorted(named | {p.name for p in (folder.exemplars / "images").glob("*.webp")}):
        path = folder.exemplars / "images" / name
        shown = f"exemplars/images/{name}"
        if not path.is_file():
            yield Verified(shown, "missing")
            continue
        digest = hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
        yield Verified(shown, None if path.stem.endswith(f"-{digest}") else "altered after it was written")


def _parsed(folder: RunFolder) -> Iterator[Verified]:
    """Check files without a hash by parsing them."""
    for path in sorted(p for p in folder.path.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = path.relative_to(folder.path).as_posix()
        try:
            known = _read(path, name, folder)
        except Exception as error:
            yield Verified(name, in_words(error).found, known=False)
            continue
        if known:
            yield Verified(name, None, known=False)
    if not folder.toml.exists():
        yield Verified("run.toml", "missing", known=False)


def _read(path: Path, name: str, folder: RunFolder) -> bool:
    """Parse a file by its suffix; return False for an unknown suffix."""
    if name == "run.toml":
        folder.read_settings()
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line)
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            file.keys()
    elif path.suffix in (".png", ".webp"):
        from PIL import Image

        with Image.open(path) as image:
            image.load()
    else:
        return False
    return True
