"""The run folder: one place that knows which file is called what, and writes every one of them whole or not at all."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from cliplens.errors import DamagedError, InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes `path`'s place only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; nan becomes null, so that every JSON reader can read it."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DamagedError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DamagedError(expected=f"JSON in {path}", found=str(error), fix="delete the file and run again") from error


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): _plain(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(v) for v in content]
    if hasattr(content, "tolist"):
        return _plain(content.tolist())
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return str(content) if isinstance(content, Path) else content


@dataclass(frozen=True)
class RunFolder:
    """The files of a run. `docs/run-folder.md` says what is in each."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """A folder that holds a run.

        Raises:
            InputError: there is no run.toml in it.
        """
        folder = cls(Path(path))
        if not folder.toml.exists():
            raise InputError(
                expected="a run folder (one with a run.toml)", found=str(path), fix="give the --out of an earlier run"
            )
        return folder

    @property
    def toml(self) -> Path:
        """Everything that was asked, versions, hashes."""
        return self.path / "run.toml"

    @property
    def activations(self) -> Path:
        """One folder per tower and hook."""
        return self.path / "activations"

    @property
    def sae(self) -> Path:
        """The dictionary, in SAELens' own format."""
        return self.path / "sae"

    @property
    def quarantine(self) -> Path:
        """One line per bad pair."""
        return self.path / "quarantine.jsonl"

    @property
    def latents(self) -> Path:
        """One row per latent."""
        return self.path / "latents.parquet"

    @property
    def exemplars(self) -> Path:
        """Thumbnails and captions of the top samples."""
        return self.path / "exemplars"

    @property
    def findings(self) -> Path:
        """Small tables and notes of the metrics, as JSON, for the report."""
        return self.path / "findings.json"

    @property
    def steering(self) -> Path:
        """What steering did: strip.png and steering.json."""
        return self.path / "steering"

    @property
    def summary(self) -> Path:
        """The headline figures."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """One page to look at."""
        return self.path / "report.html"

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write run.toml; TOML has no null, so what is None is left out."""
        with written_whole(self.toml) as partial:
            partial.write_text(tomli_w.dumps(_without_none(settings)))

    def read_settings(self) -> dict[str, Any]:
        """Read run.toml."""
        return tomllib.loads(self.toml.read_text())


def _without_none(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): _without_none(v) for k, v in content.items() if v is not None}
    if isinstance(content, list | tuple):
        return [_without_none(v) for v in content if v is not None]
    return str(content) if isinstance(content, Path) else content
