"""`cliplens contribution`: which modality class of latents carries a task."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def contribution(
    run: Annotated[Path, typer.Argument(help="A run folder, of both towers.")],
    pairs: Annotated[int, typer.Option(help="Scored pairs to test on.", min=2)] = 512,
    labels: Annotated[
        str | None, typer.Option(help="Column of the pairs' table, or a factor of the world: zero-shot of its values.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Folder with one subfolder of pictures per class: zero-shot of its classes.")
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(help="MODULE:NAME of a function of image and text embeddings of the pairs: a task of your own."),
    ] = None,
    rule: Annotated[
        Literal["modality", "modality_paper", "modality_significant"], typer.Option(help="Column with the classes.")
    ] = "modality",
    baseline: Annotated[Literal["mean", "zero"], typer.Option(help="What removed parts are replaced by.")] = "mean",
    controls: Annotated[int, typer.Option(help="Random sets of latents per class.", min=0)] = 20,
    resamples: Annotated[int, typer.Option(help="Resamples of the pairs that made the classes.", min=0)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Which modality class carries retrieval, zero-shot and the contrastive loss: Shapley values over ImgD, TextD,
    CrossD, dead latents and the error term, removal of one class beside random latents, in either tower and in both.

    Writes RUN/studies/contribution.json and a section of the report. docs/contribution.md says how to read it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import OpenedRun, results, write_report
    from cliplens.runfolder import RunFolder
    from cliplens.studies import print_study, write_study
    from cliplens_plugins.contribution.of_run import Asked, study_of_run

    opened = OpenedRun(RunFolder.open(run))
    asked = Asked(
        pairs=pairs, labels=labels, labelled=labelled, function=function, rule=rule, baseline=baseline,
        controls=controls, resamples=resamples, seed=seed,
    )  # fmt: skip
    with results(opened.folder, "contribution", opened.folder.studies / "contribution.json"):
        study = study_of_run(opened, asked)
        path = write_study(opened.folder, study)
    print_study(study)
    typer.echo(f"Written: {path}")
    typer.echo(f"Report: {write_report(opened.folder)}")
