"""Define the steps of a run, and record the settings, inputs and outputs of each finished step.

A step is done if its record agrees with the current settings and inputs, and its files are present and unaltered.
Results of other commands in the run folder (`cliplens.run.results`) have records of the same kind.
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

from cliplens import __version__
from cliplens.distributed import Group
from cliplens.errors import DamagedError
from cliplens.files import digest_of, read_json, write_json
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

FORMAT = "cliplens-steps-1"
LONG = 600
"""Seconds that a step took from which its results are only replaced when `redo` asks for it."""
MISSING, ALTERED = "missing", "altered after it was written"
_IN_WORDS = {MISSING: "is missing", ALTERED: "was altered after it was written"}
_PACKAGES = ("cliplens", "torch", "sae-lens", "transformer-lens", "open_clip_torch", "numpy")
_LOG = logging.getLogger("cliplens")

StepName = Literal["harvest", "train", "score", "name", "report"]
Reason = Literal["done", "new", "lost", "damaged", "options", "inputs"]


@dataclass(frozen=True)
class Step:
    """One step of a run: the settings it uses, the steps it needs, the files it writes."""

    name: StepName
    reads: tuple[str, ...]
    """Fields of `Settings` on which its outputs depend."""
    needs: tuple[StepName, ...]
    writes: tuple[str, ...]
    """Patterns of its files in the run folder, or a folder with a slash at its end; its record lists what is there."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the settings that this step uses."""
        return {name: getattr(settings, name) for name in self.reads}

    def files(self, folder: Path) -> dict[str, Path]:
        """Return the existing files of the step, by name in the folder; hidden files are ignored.

        A folder that is recorded as a whole has a name with a slash at its end.
        """
        found = {p for pattern in self.writes if not pattern.endswith("/") for p in folder.glob(pattern) if p.is_file()}
        named = {p.relative_to(folder).as_posix(): p for p in sorted(found)}
        named |= {w: folder / w for w in self.writes if w.endswith("/") and (folder / w).is_dir()}
        return {name: path for name, path in named.items() if not any(x.startswith(".") for x in Path(name).parts)}


_MODEL = ("model", "pretrained", "hook", "tower", "token", "dtype", "autocast", "compile", "forward_batch")
HARVEST = Step(
    "harvest",
    (*_MODEL, "background", "orientation", "max_pixels", "cache_dtype", "max_bad"),
    (),
    ("activations", "activations/*.json", "activations/*/*.json", "quarantine.jsonl"),
)
TRAIN = Step(
    "train",
    ("architecture", "d_sae", "k", "sparsity", "samples", "batch_size", "lr", "seed", "centre", "held_out"),
    ("harvest",),
    ("sae/**/*",),
)
SCORE = Step(
    "score",
    ("held_out", "sae", "layout", "target", "judge", "controls"),
    ("harvest", "train"),
    ("scores/*", "exemplars/*.parquet", "exemplars/images/"),
)
NAME = Step(
    "name",
    ("namer", "vocabulary", "judge"),
    ("harvest", "train", "score"),
    ("latents.parquet", "findings.json", "summary.json"),
)
REPORT = Step("report", (), ("name",), ("report.html",))
STEPS = (HARVEST, TRAIN, SCORE, NAME, REPORT)
SETTINGS = "settings"
"""Name of the record of run.toml: what was asked, up to which step, and the hash of the file."""
RECORDS = "records"
"""Key of run.toml that names the file of the records; version 0.1.0 wrote none."""


@dataclass(frozen=True)
class Record:
    """The settings, inputs and outputs of a finished step."""

    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Hash of each input: the pairs, the model, files that options name, and the steps it needs."""
    outputs: Mapping[str, Mapping[str, Any]]
    """`{"sha256", "bytes"}` of each file, or of each folder, whose name has a slash at its end."""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of all outputs."""
        lines = "".join(f"{name} {written['sha256']}\n" for name, written in sorted(self.outputs.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def problems(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield the outputs that are not as they were written, each with `MISSING` or `ALTERED`."""
        for name, written in self.outputs.items():
            path = folder / name
            if not (path.is_dir() if name.endswith("/") else path.is_file()):
                yield name, MISSING
            elif digest_of(path) != (written["sha256"], written["bytes"]):
                yield name, ALTERED


def outputs_of(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the outputs of a record: hash and size of each file or folder, by name."""
    digests = {name: digest_of(path) for name, path in files.items()}
    return {name: {"sha256": sha256, "bytes": size} for name, (sha256, size) in digests.items()}


@dataclass(frozen=True)
class State:
    """Whether a step is done and, if not, the reason in words."""

    step: Step
    reason: Reason
    words: str
    changed: tuple[str, ...] = ()
    """Names of the inputs that have changed."""

    @property
    def done(self) -> bool:
        """Whether the step needs nothing to be done."""
        return self.reason == "done"


class StepLog:
    """The file steps.json of a run: the record of each step, and the seconds it took."""

    FILE = "steps.json"

    def __init__(self, folder: RunFolder, group: Group | None = None) -> None:
        self.folder = folder
        self._path = folder.path / self.FILE
        self._writes = group is None or group.rank == 0
        self.seconds: dict[str, float] = {}
        self.records: dict[str, Record] = {}
        self.legacy = True
        """Whether the folder was made by a version without records, or its records cannot be read."""
        self.whole = False
        """Whether `steps.json` is as it was written."""
        self.damaged: str | None = None
        """The fault of `steps.json`; None if there is no fault or no file."""
        self._read()

    def _read(self) -> None:
        try:
            found = read_json(self._path)
            if isinstance(found, dict) and found.get("format") == FORMAT:
                _check_whole(found)
                known = {f.name for f in fields(Record)}
                self.records = {n: Record(**{k: r[k] for k in known}) for n, r in found["records"].items()}
                self.seconds = {str(n): float(s) for n, s in found["seconds"].items()}
                self.legacy, self.whole = False, "sha256" in found
            elif isinstance(found, dict):
                self.seconds = {str(n): float(s) for n, s in found.items()}
        except FileNotFoundError:
            pass
        except (DamagedError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            self.damaged = error.found if isinstance(error, DamagedError) else str(error)
            _LOG.warning("%s cannot be read, so the state of each step is taken from its files", self._path)
            self.records, self.seconds = {}, {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the time of a part of the run. If a run is resumed, the longest time is kept."""
        started = time.perf_counter()
        yield
        took = time.perf_counter() - started
        self.seconds[name] = round(max(took, self.seconds.get(name, 0.0)), 3)

    def state(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> State:
        """Return whether a step is done, from its record, the current settings and inputs, and its files."""
        record = self.records.get(step.name)
        if record is None:
            return State(step, "new", "not done yet")
        changed = _changes(record.options, step.options(settings))
        if changed:
            return State(step, "options", "changed: " + ", ".join(changed))
        # An input that an older version did not record counts as unchanged.
        other = sorted(name for name, digest in inputs.items() if record.inputs.get(name, digest) != digest)
        if other:
            return State(step, "inputs", "other " + ", ".join(other), tuple(other))
        return self.damage(step) or State(step, "done", "done")

    def damage(self, step: Step) -> State | None:
        """Return the fault in the files of a finished step; None if all are as they were written."""
        for name, problem in self.records[step.name].problems(self.folder.path):
            return State(step, "lost" if problem == MISSING else "damaged", f"{name} {_IN_WORDS[problem]}")
        return None

    def record(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> None:
        """Record the settings, the inputs and the output hashes of a step, and write steps.json."""
        self.adopt(step, settings, inputs)
        self.save()

    def adopt(self, step: Step, settings: Settings, inputs: Mapping[str, str]) -> None:
        """Keep the record of a step in memory, without writing it."""
        options = json.loads(json.dumps(step.options(settings)))
        self.keep(step.name, Record(options, dict(inputs), outputs_of(step.files(self.folder.path)), versions()))

    def keep(self, name: str, record: Record) -> None:
        """Keep a record in memory; `save` writes it."""
        self.records[name] = record

    def save(self) -> None:
        """Write steps.json, only in the first process of a group."""
        if self._writes:
            records = {name: asdict(record) for name, record in self.records.items()}
            held = {"format": FORMAT, "seconds": self.seconds, "records": records}
            write_json(self._path, {**held, "sha256": _own_hash(held)})


def _own_hash(held: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _check_whole(found: Mapping[str, Any]) -> None:
    """Check the hash that steps.json holds of itself; earlier versions wrote none.

    Raises:
        ValueError: it is another one.
    """
    held = {name: value for name, value in found.items() if name != "sha256"}
    if "sha256" in found and found["sha256"] != _own_hash(held):
        raise ValueError("it was altered after it was written")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the options that differ; one that an older version did not record counts as unchanged."""
    return [
        f"--{name.replace('_', '-')} {value} (was {before[name]})"
        for name, value in now.items()
        if name in before and before[name] != value
    ]


def steps_until(until: StepName, settings: Settings) -> Sequence[Step]:
    """Return the steps of a run up to `until`, in order, without training if a dictionary is given."""
    last = [step.name for step in STEPS].index(until)
    return [step for step in STEPS[: last + 1] if not (step is TRAIN and settings.sae is not None)]


def versions() -> dict[str, str]:
    """Return the versions of cliplens, its main dependencies and Python, and the machine type."""
    return {
        **{package: version(package) for package in _PACKAGES},
        "cliplens": __version__,  # the metadata of an editable install may be older
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
