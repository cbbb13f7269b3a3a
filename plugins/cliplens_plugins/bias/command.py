"""`cliplens bias`: what latents, classes and published methods do against a bias."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def bias(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="waterbirds:FOLDER, celeba:FOLDER, fairface:FOLDER, utkface:FOLDER, or emoji:noto; the world plants "
            "its own."
        ),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Attribute of the data set that makes the groups.")] = None,
    target: Annotated[str | None, typer.Option(help="Attribute of the data set that is classified.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="File with a sentence a line to rank images by; default the target classes.")
    ] = None,
    images: Annotated[int, typer.Option(help="Images to fit on, and to test on, at most.", min=8)] = 2000,
    rate: Annotated[float, typer.Option(help="Rate of the bias planted on the world.", min=0, max=1)] = 0.95,
    pairs: Annotated[int, typer.Option(help="Scored pairs of the run for retrieval.", min=2)] = 384,
    top: Annotated[int, typer.Option(help="Latents taken to carry the attribute.", min=1)] = 12,
    controls: Annotated[int, typer.Option(help="Random sets of latents.", min=0)] = 3,
    draws: Annotated[int, typer.Option(help="Bootstrap samples of test images.", min=2)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Bias of zero-shot, rankings and probes before and after SEM, S&P Top-K, Orth-Proj, Orth-Cali, LEACE and edits of
    latents by class, beside random latents; which latents carry the attribute; in which modality a planted bias lies.

    Writes RUN/studies/bias.json and a section of the report. docs/bias.md says how to read it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import OpenedRun, results, write_report
    from cliplens.runfolder import RunFolder
    from cliplens.studies import print_study, write_study
    from cliplens_plugins.bias.of_run import Asked, study_of_run

    opened = OpenedRun(RunFolder.open(run))
    asked = Asked(
        data=data, group=group, target=target, queries=queries, images=images, rate=rate, pairs=pairs, top=top,
        controls=controls, draws=draws, seed=seed,
    )  # fmt: skip
    with results(opened.folder, "bias", opened.folder.studies / "bias.json"):
        study = study_of_run(opened, asked)
        path = write_study(opened.folder, study)
    print_study(study)
    typer.echo(f"Written: {path}")
    typer.echo(f"Report: {write_report(opened.folder)}")
