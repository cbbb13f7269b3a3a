"""`cliplens contribution`: measure how much each modality class of latents contributes to tasks."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def contribution(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run of both towers.")],
    pairs: Annotated[int, typer.Option(help="Number of scored pairs to test on.", min=2)] = 512,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Also classify the values of this column of the pairs' table, or of this factor of the world."
        ),
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Also classify the pictures in this folder, which has one subfolder per class.")
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            help="A task of your own: MODULE:NAME of a function of the image and text embeddings of the pairs."
        ),
    ] = None,
    rule: Annotated[
        Literal["modality", "modality_paper", "modality_significant"],
        typer.Option(help="Column of the latent table with the classes."),
    ] = "modality",
    baseline: Annotated[
        Literal["mean", "zero"], typer.Option(help="Replace removed parts by their mean, or by zero.")
    ] = "mean",
    controls: Annotated[int, typer.Option(help="Number of random sets of latents per class.", min=0)] = 20,
    resamples: Annotated[
        int, typer.Option(help="Number of bootstrap samples of the pairs that the classes were computed from.", min=0)
    ] = 20,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
) -> None:
    """Measure how much each modality class of latents contributes to retrieval, zero-shot and the contrastive loss.

    It computes Shapley values of ImgD, TextD, CrossD, the dead latents and the error term, and the loss of performance
    when one class is removed, compared with random latents: in the image tower, in the text tower and in both.

    Writes RUN/studies/contribution.json and a section of the report. docs/contribution.md explains the figures.

    Example: cliplens contribution runs/first
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import run_study
    from cliplens_plugins.contribution.of_run import study_of_run
    from cliplens_plugins.contribution.options import ContributionOptions

    asked = ContributionOptions(
        pairs=pairs, labels=labels, labelled=labelled, function=function, rule=rule, baseline=baseline,
        controls=controls, resamples=resamples, seed=seed,
    )  # fmt: skip
    run_study(run, lambda opened: study_of_run(opened, asked), command="contribution")
