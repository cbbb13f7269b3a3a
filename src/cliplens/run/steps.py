"""The steps of a run and the record of each: what it was asked, what it read, what it wrote.

A step is done when its record agrees with what is asked now and its files are there and whole. Nothing else decides.
"""

import hashlib
import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from cliplens.distributed import Group
from cliplens.errors import DamagedError
from cliplens.files import read_json, sha256_of, write_json
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

FORMAT = "cliplens-steps-1"
_PACKAGES = ("cliplens", "torch", "sae-lens", "transformer-lens", "open_clip_torch", "numpy")
_LOG = logging.getLogger("cliplens")

StepName = Literal["harvest", "train", "score", "report"]
Reason = Literal["done", "new", "lost", "damaged", "options", "inputs"]


@dataclass(frozen=True)
class Step:
    """One step of a run: the settings it reads, the steps it needs, the files it writes."""

    name: StepName
    reads: tuple[str, ...]
    """Fields of `Settings` that decide its outputs."""
    needs: tuple[StepName, ...]
    writes: tuple[str, ...]
    """Patterns of its files in the run folder; the files themselves are listed in its record."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the settings this step reads."""
        return {name: getattr(settings, name) for name in self.reads}

    def files(self, folder: Path) -> dict[str, Path]:
        """Return the step's files that are there, by name in the folder; hidden files are nobody's."""
        found = {p for pattern in self.writes for p in folder.glob(pattern) if p.is_file()}
        named = {p.relative_to(folder).as_posix(): p for p in sorted(found)}
        return {name: path for name, path in named.items() if not any(x.startswith(".") for x in Path(name).parts)}


_MODEL = ("model", "pretrained", "hook", "tower", "token", "dtype", "autocast", "compile", "forward_batch")
HARVEST = Step(
    "harvest",
    (*_MODEL, "background", "orientation", "max_pixels", "cache_dtype", "max_bad"),
    (),
    ("activations/*.json", "activations/*/*.json", "quarantine.jsonl"),
)
TRAIN = Step(
    "train",
    ("architecture", "d_sae", "k", "sparsity", "samples", "batch_size", "lr", "seed", "centre", "held_out"),
    ("harvest",),
    ("sae/**/*",),
)
SCORE = Step(
    "score",
    ("held_out", "sae", "layout", "target", "judge", "namer", "vocabulary"),
    ("harvest", "train"),
    ("latents.parquet", "exemplars/*.parquet", "findings.json", "summary.json"),
)
REPORT = Step("report", (), ("score",), ("report.html",))
STEPS = (HARVEST, TRAIN, SCORE, REPORT)


@dataclass(frozen=True)
class Record:
    """What a finished step was asked, read and wrote."""

    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Name of an input -> hash: the pairs, the model, files that options name, and the steps it needs."""
    outputs: Mapping[str, Mapping[str, Any]]
    """File -> `{"sha256", "bytes"}`."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """One hash of all outputs."""
        lines = "".join(f"{name} {written['sha256']}\n" for name, written in sorted(self.outputs.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class State:
    """Whether a step is done, and in words why it is not."""

    step: Step
    reason: Reason
    words: str
    changed: tuple[str, ...] = ()
    """The inputs that are others than before."""

    @property
    def done(self) -> bool:
        """Whether nothing is to be done."""
        return self.reason == "done"


class StepLog:
    """`steps.json` of a run: the record of each step, and the seconds each took."""

    def __init__(self, folder: RunFolder, group: Group | None = None) -> None:
        self.folder = folder
        self._path = folder.path / "steps.json"
        self._writes = group is None or group.rank == 0
        self.seconds: dict[str, float] = {}
        self.records: dict[str, Record] = {}
        self.legacy = True
        """Whether the folder was made before steps had records."""
        self._read()

    def _read(self) -> None:
        try:
            found = read_json(self._path)
            if isinstance(found, dict) and found.get("format") == FORMAT:
                known = {f.name for f in fields(Record)}
                self.records = {n: Record(**{k: r[k] for k in known}) for n, r in found["records"].items()}
                self.seconds = {str(n): float(s) for n, s in found["seconds"].items()}
                self.legacy = False
            elif isinstance(found, dict):
                self.seconds = {str(n): float(s) for n, s in found.items()}
        except FileNotFoundError:
            pass
        except (DamagedError, KeyError, TypeError, ValueError, AttributeError):
            _LOG.warning("%s cannot be read: the steps of this run are judged by their files alone", self._path)
            self.records, self.seconds = {}, {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a part of the run. Of a run that was resumed the longest time counts."""
        started = time.perf_counter()
        yield
        took = time.perf_counter() - started
        self.seconds[name] = round(max(took, self.seconds.get(name, 0.0)), 3)

    def state(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> State:
        """Return whether a step is done, judged by its record, what is asked now, and its files."""
        record = self.records.get(step.name)
        if record is None:
            return State(step, "new", "not done yet")
        changed = _changes(record.options, step.options(settings))
        if changed:
            return State(step, "options", "changed: " + ", ".join(changed))
        # An input that an older version did not record has not changed.
        other = sorted(name for name, digest in inputs.items() if record.inputs.get(name, digest) != digest)
        if other:
            return State(step, "inputs", "other " + ", ".join(other), tuple(other))
        return self.damage(step) or State(step, "done", "done")

    def damage(self, step: Step) -> State | None:
        """Return what is wrong with the files of a step that was done; None when all are as they were written."""
        for name, written in self.records[step.name].outputs.items():
            path = self.folder.path / name
            if not path.is_file():
                return State(step, "lost", f"{name} is missing")
            if path.stat().st_size != written["bytes"] or sha256_of(path) != written["sha256"]:
                return State(step, "damaged", f"{name} was altered since it was written")
        return None

    def record(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> None:
        """Keep what a step was asked and read, with the hashes of what it wrote, and write `steps.json`."""
        self.adopt(step, settings, inputs)
        self.save()

    def adopt(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> None:
        """Keep the record of a step in memory."""
        outputs = {
            name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for name, path in step.files(self.folder.path).items()
        }
        options = json.loads(json.dumps(step.options(settings)))
        self.records[step.name] = Record(options, dict(inputs), outputs, versions())

    def save(self) -> None:
        """Write `steps.json`; only the first process of a group does."""
        if self._writes:
            records = {name: asdict(record) for name, record in self.records.items()}
            write_json(self._path, {"format": FORMAT, "seconds": self.seconds, "records": records})


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options that differ; one that an older version did not record has not changed."""
    return [
        f"--{name.replace('_', '-')} {value} (was {before[name]})"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def steps_until(until: StepName, settings: Settings) -> Sequence[Step]:
    """Return the steps of a run up to one, in order. A dictionary made elsewhere is not trained."""
    last = [step.name for step in STEPS].index(until)
    return [step for step in STEPS[: last + 1] if not (step is TRAIN and settings.sae is not None)]


def versions() -> dict[str, str]:
    """Return the versions of cliplens, its hosts and Python, and the kind of machine."""
    return {
        **{package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
