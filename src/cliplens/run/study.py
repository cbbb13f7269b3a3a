"""Make a study of a finished run from the command line."""

from collections.abc import Callable
from pathlib import Path

import typer

from cliplens.run.opened import OpenedRun
from cliplens.run.reports import write_report
from cliplens.run.results import results
from cliplens.runfolder import RunFolder
from cliplens.studies import Study, print_study, write_study


def run_study(
    folder: Path, make: Callable[[OpenedRun], Study], *, command: str, name: str | None = None, page: str | None = None
) -> None:
    """Open a run, make a study of it, write its record and the report, and print the results and the paths.

    Args:
        folder: the run folder.
        make: function that makes the study. It also writes `page`, if there is one.
        command: name of the command, for `cliplens verify`.
        name: name of the study; None takes that of the command.
        page: file in the run folder that `make` writes.

    Raises:
        InputError: the folder holds no finished run, or `make` cannot use it.
    """
    run = OpenedRun(RunFolder.open(folder))
    record = run.folder.studies / f"{name or command}.json"
    pages = [] if page is None else [run.folder.path / page]
    with results(run.folder, command, record, *pages):
        study = make(run)
        write_study(run.folder, study)
    print_study(study)
    typer.echo(f"Written: {record}")
    for path in pages:
        typer.echo(f"Page: {path}")
    typer.echo(f"Report: {write_report(run.folder)}")
