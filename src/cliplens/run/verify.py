"""Check every file of a run folder against its recorded hash, and find the command that repairs it."""

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow.parquet as pq

from cliplens.errors import CliplensError
from cliplens.faults import in_words
from cliplens.files import read_json, sha256_of
from cliplens.run.steps import STEPS, StepLog
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.store.manifest import ShardRecord, read_plan


@dataclass(frozen=True)
class Verified:
    """The result of checking one file."""

    name: str
    problem: str | None
    """What is wrong with the file; None if it is unaltered."""
    known: bool = True
    """Whether its hash was recorded; otherwise the file was only parsed."""


def verify(folder: RunFolder) -> list[Verified]:
    """Check all files of a run. The bytes of each file are compared with the recorded hash.

    Files without a recorded hash (of `cliplens fidelity` and `steer`, or of version 0.1.0) are only parsed.
    """
    found = {one.name: one for one in _parsed(folder)}
    found |= {one.name: one for one in _thumbnails(folder)}
    found |= {one.name: one for one in _shards(folder)}
    found |= {one.name: one for one in _recorded(folder)}
    return sorted(found.values(), key=lambda one: one.name)


def resume_command(folder: RunFolder) -> str:
    """Return the command that writes missing and damaged files of a run again, with the options of the run."""
    try:
        asked = folder.read_settings()["asked"]
    except (OSError, CliplensError):
        return f"cliplens run --resume --out {shlex.quote(str(folder.path))} with the options of the run"
    defaults = {f.name: f.default for f in fields(Settings)}
    options = []
    for name, value in asked.items():
        if name in defaults and defaults[name] != value:
            option = name.replace("_", "-")
            flag = [f"--{option}" if value else f"--no-{option}"]
            values = value if isinstance(value, list) else [value]
            options += flag if isinstance(value, bool) else [f"--{option}", *map(str, values)]
    words = ["cliplens", "score" if "sae" in asked else "run", *options, "--resume", "--out", str(folder.path)]
    return shlex.join(words)


def _recorded(folder: RunFolder) -> Iterator[Verified]:
    log = StepLog(folder)
    for step in STEPS:
        record = log.records.get(step.name)
        for name, written in (record.outputs if record else {}).items():
            path = folder.path / name
            if not path.is_file():
                yield Verified(name, "missing")
            elif path.stat().st_size != written["bytes"] or sha256_of(path) != written["sha256"]:
                yield Verified(name, "altered after it was written")
            else:
                yield Verified(name, None)


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
