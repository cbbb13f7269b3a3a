"""Define the file names in a run folder, which docs/run-folder.md specifies."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from cliplens.deprecation import deprecated_names
from cliplens.errors import DamagedError, InputError
from cliplens.files import write_text

__getattr__ = deprecated_names(
    __name__,
    {
        "written_whole": "cliplens.files:atomic_write",
        "write_json": "cliplens.files:write_json",
        "read_json": "cliplens.files:read_json",
    },
)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run. `docs/run-folder.md` specifies their contents."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Open a folder that holds a run.

        Raises:
            InputError: the folder has no run.toml.
        """
        folder = cls(Path(path))
        if not folder.toml.exists():
            raise InputError(
                expected="a run folder, which contains run.toml",
                found=str(path) if folder.path.is_dir() else f"no folder {path}",
                fix="pass the folder given to --out in an earlier run",
            )
        return folder

    @property
    def toml(self) -> Path:
        """Settings of the run: options, versions, hashes."""
        return self.path / "run.toml"

    @property
    def activations(self) -> Path:
        """Folder of activations, with one folder per tower and hook.

        In a run that shares them with others, `activations` is a file with the path of the folder, relative to the run.

        Raises:
            DamagedError: that file cannot be read.
        """
        own = self.path / "activations"
        if not own.is_file():
            return own
        try:
            return self.path / own.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise DamagedError(
                expected=f"the path of a folder of activations in {own}",
                found=str(error),
                fix="run the sweep again that made it, with --resume",
            ) from error

    @property
    def shares_activations(self) -> bool:
        """Whether the activations belong to several runs. A run only reads those."""
        return (self.path / "activations").is_file()

    def share_activations(self, folder: Path) -> None:
        """Let the run read the activations in a folder, which is recorded relative to the run."""
        where = Path(os.path.relpath(folder.resolve(), self.path.resolve())).as_posix()
        if not self.shares_activations or self.activations.resolve() != folder.resolve():
            write_text(self.path / "activations", f"{where}\n")

    @property
    def sae(self) -> Path:
        """Folder of the dictionary, in SAELens' format."""
        return self.path / "sae"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints from which an interrupted training resumes."""
        return self.path / "checkpoints"

    @property
    def quarantine(self) -> Path:
        """File with one line per bad pair."""
        return self.path / "quarantine.jsonl"

    @property
    def scores(self) -> Path:
        """Results of the pass over the scored pairs, from which latents are named."""
        return self.path / "scores"

    @property
    def latents(self) -> Path:
        """Table with one row per latent."""
        return self.path / "latents.parquet"

    @property
    def exemplars(self) -> Path:
        """Folder of thumbnails and captions of the top samples."""
        return self.path / "exemplars"

    @property
    def findings(self) -> Path:
        """Tables and notes of the metrics, as JSON, for the report."""
        return self.path / "findings.json"

    @property
    def steering(self) -> Path:
        """Folder of steering results: strip.png and steering.json."""
        return self.path / "steering"

    @property
    def studies(self) -> Path:
        """Folder of the records of studies (`cliplens contribution`, `cliplens bias`): one JSON file each."""
        return self.path / "studies"

    @property
    def summary(self) -> Path:
        """Headline figures, as JSON."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.path / "report.html"

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write run.toml. None values are left out, because TOML has no null."""
        write_text(self.toml, tomli_w.dumps(_without_none(settings)))

    def read_settings(self) -> dict[str, Any]:
        """Read run.toml.

        Raises:
            DamagedError: the file cannot be read, or lacks the options of the run.
        """
        try:
            found = tomllib.loads(self.toml.read_text(encoding="utf-8"))
        except ValueError as error:
            raise self._damaged(str(error)) from error
        if not isinstance(found.get("asked"), dict):
            raise self._damaged("no table [asked]")
        return found

    def _damaged(self, found: str) -> DamagedError:
        return DamagedError(
            expected=f"the settings of a run in {self.toml}",
            found=found,
            fix=f"write it again with cliplens run --resume --out {self.path} and the options of the run",
        )


def _without_none(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): _without_none(v) for k, v in content.items() if v is not None}
    if isinstance(content, list | tuple):
        return [_without_none(v) for v in content if v is not None]
    return str(content) if isinstance(content, Path) else content
