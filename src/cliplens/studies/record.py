"""Write and read the record of a study, `RUN/studies/NAME.json`. The report shows each record as a section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplens.errors import DamagedError
from cliplens.files import read_json, write_json
from cliplens.runfolder import RunFolder

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """The result of a study."""

    name: str
    """Name of the study, such as "bias": the file name, and the anchor of the section in the report."""
    title: str
    findings: Sequence[str] = ()
    """Findings in full sentences, bad results first."""
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Rows of each table, by its title."""
    notes: Sequence[str] = ()
    """Notes on how to read the tables, and on what they do not show."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The options of the study."""
    latents: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Latents whose cards the section links to, by title."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Pictures of the section: data URIs (`data:image/...`), by what they show."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """All figures behind the tables, for scripts. The report does not show them."""


def write_study(folder: RunFolder, study: Study) -> Path:
    """Write the record of a study into a run folder and return its path. Numbers that are not finite become null."""
    path = folder.studies / f"{study.name}.json"
    write_json(path, vars(study))
    return path


def read_studies(folder: RunFolder) -> list[Study]:
    """Return the studies of a run, in the order of their names; an empty list if there are none.

    Raises:
        DamagedError: a file is not the record of a study.
    """
    found = []
    for path in sorted(folder.studies.glob("*.json")) if folder.studies.is_dir() else []:
        try:
            found.append(Study(**read_json(path)))
        except TypeError as error:
            raise DamagedError(
                expected=f"the record of a study in {path}", found=str(error), fix=f"run cliplens {path.stem} again"
            ) from error
    return found
