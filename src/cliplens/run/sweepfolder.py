"""The folder of a sweep: what was asked, and one run folder per dictionary."""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from cliplens.errors import DamagedError, InputError
from cliplens.files import write_text
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings

FORMAT = "cliplens-sweep-1"


@dataclass(frozen=True)
class SweepFolder:
    """The files of a sweep. `docs/comparison.md` specifies them."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "SweepFolder":
        """Open a folder that holds a sweep.

        Raises:
            InputError: the folder has no sweep.toml.
        """
        folder = cls(Path(path))
        if not folder.toml.exists():
            raise InputError(
                expected="the folder of a sweep, which contains sweep.toml",
                found=str(path),
                fix="pass the folder given to --out of cliplens sweep",
            )
        return folder

    @property
    def toml(self) -> Path:
        """Settings, grid, and the names of the runs."""
        return self.path / "sweep.toml"

    @property
    def claims(self) -> Path:
        """Hidden folder of locks, one per dictionary; a lock ends with the process that holds it."""
        return self.path / ".claims"

    def run(self, name: str) -> RunFolder:
        """Return the run folder of a dictionary, which may not exist yet."""
        return RunFolder(self.path / name)

    @property
    def names(self) -> list[str]:
        """Names of all dictionaries of the sweep, finished or not, in the order of the grid."""
        return [str(name) for name in self._read()["runs"]]

    @property
    def runs(self) -> list[RunFolder]:
        """The run folders that exist."""
        return [run for name in self.names if (run := self.run(name)).toml.exists()]

    def write(self, settings: Settings, grid: Mapping[str, Sequence[Any]], names: Sequence[str], until: str) -> None:
        """Write sweep.toml. Names of an earlier command stay in the list."""
        before = self.names if self.toml.exists() else []
        content = {
            "format": FORMAT,
            "asked": settings.asked(),
            "grid": {name: list(values) for name, values in grid.items()},
            "until": until,
            "runs": list(dict.fromkeys([*before, *names])),
        }
        write_text(self.toml, tomli_w.dumps(content))

    def command(self) -> str:
        """Return the command that finishes or repairs the sweep."""
        found = self._read()
        defaults = {f.name: f.default for f in fields(Settings)}
        words = ["cliplens", "sweep"]
        for name, value in {**found["asked"], **found["grid"]}.items():
            if name not in defaults or (name not in found["grid"] and defaults[name] == value):
                continue
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            elif name in found["grid"]:
                words += [f"--{option}", ",".join(map(str, value))]
            else:
                words += [f"--{option}", *(map(str, value) if isinstance(value, list) else [str(value)])]
        until = ["--until", found["until"]] if found.get("until", "name") != "name" else []
        return shlex.join([*words, *until, "--resume", "--out", str(self.path)])

    def _read(self) -> dict[str, Any]:
        try:
            found = tomllib.loads(self.toml.read_text(encoding="utf-8"))
            if found["format"] != FORMAT:
                raise ValueError(f"the format {found['format']!r}")
            if not all(isinstance(found[key], kind) for key, kind in (("asked", dict), ("grid", dict), ("runs", list))):
                raise TypeError("fields of another kind")
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(
                expected=f"what a sweep was asked in {self.toml}",
                found=str(error),
                fix="run cliplens sweep --resume with its options again",
            ) from error
        return found
