"""`cliplens attack`: attacks on pixels, the classes of latents they move, and what detectors and clean-up do."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def attack(
    run: Annotated[Path, typer.Argument(help="A run folder, of both towers.")],
    eps: Annotated[
        str | None, typer.Option(help="Largest changes of a pixel, in levels of 255, such as 1,2,4,8 (default).")
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Of margin, ce, feature, caption, class, goal, with commas; default all.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Folder with one subfolder of pictures per class, a column of the pairs' table, or a factor of the"
            " world. Default: the shape on the world, else each picture's own caption."
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Pictures to measure; default up to 64, by the size of the model.", min=2)
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of 1/255 per attack.", min=1)] = 10,
    restarts: Annotated[int, typer.Option(help="Random starts per attack.", min=1)] = 1,
    strong: Annotated[
        bool, typer.Option("--strong", help="100 steps of eps/4 and five starts, for claims: 50 times as long.")
    ] = False,
    transfer: Annotated[
        str | None, typer.Option(help="Another model that sees the same pictures; the world has a twin by default.")
    ] = None,
    reseed: Annotated[bool, typer.Option(help="Train the dictionary again from another seed, as a control.")] = True,
    rule: Annotated[
        Literal["modality", "modality_paper", "modality_significant"], typer.Option(help="Column with the classes.")
    ] = "modality",
    controls: Annotated[int, typer.Option(help="Random sets of latents per class.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Attack pixels (PGD) by zero-shot, feature, caption and class of latents, and write words on pictures: what the
    model says, which class moves, what detectors and clean-up find, and what survives an attack that knows them.

    Writes RUN/studies/attack.json and a section of the report. docs/robustness.md says how to read it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import OpenedRun, results, write_report
    from cliplens.runfolder import RunFolder
    from cliplens.studies import print_study, write_study
    from cliplens_plugins.robustness.lab import Asked
    from cliplens_plugins.robustness.of_run import study_of_run
    from cliplens_plugins.robustness.options import attacks_in, levels_in

    asked = Asked(
        labels=labels, images=images, eps=levels_in(eps), attacks=attacks_in(attacks), steps=steps, restarts=restarts,
        strong=strong, transfer=transfer, reseed=reseed, controls=controls, rule=rule, seed=seed,
    )  # fmt: skip
    opened = OpenedRun(RunFolder.open(run))
    with results(opened.folder, "attack", opened.folder.studies / "attack.json"):
        study = study_of_run(opened, asked)
        path = write_study(opened.folder, study)
    print_study(study, tables=1)
    typer.echo(f"Written: {path}")
    typer.echo(f"Report: {write_report(opened.folder)}")
