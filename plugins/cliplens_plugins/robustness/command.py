"""`cliplens attack`: attacks on pixels, the classes of latents they move, and what detectors and clean-up do."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from cliplens_plugins.robustness.options import CONTROLS, FEWEST_CONTROLS

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
    elsewhere: Annotated[
        str | None,
        typer.Option(help="Pairs of another data set, to try the detectors on pictures they were not fitted on."),
    ] = None,
    reseed: Annotated[bool, typer.Option(help="Train the dictionary again from another seed, as a control.")] = True,
    rule: Annotated[
        Literal["modality", "modality_paper", "modality_significant"], typer.Option(help="Column with the classes.")
    ] = "modality",
    controls: Annotated[
        int,
        typer.Option(help="Random sets of latents that the share of each class is compared with.", min=FEWEST_CONTROLS),
    ] = CONTROLS,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Attack pictures, and measure what the model says, which class of latents moves, and what defends.

    The attacks change pixels (PGD) by zero-shot, feature, caption and class of latents, or write words on pictures.
    Defences are detectors and clean-up by latents; each is also attacked by an attack that knows it. Controls are noise
    of equal norm, random latents, a dictionary that was never trained, and one from another seed.

    Writes RUN/studies/attack.json and a section of the report. docs/robustness.md explains the figures.

    Example: cliplens attack runs/first --eps 1,4 --labels data/pets
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import run_study
    from cliplens_plugins.robustness.lab import AttackOptions
    from cliplens_plugins.robustness.of_run import study_of_run
    from cliplens_plugins.robustness.options import attacks_in, levels_in

    asked = AttackOptions(
        labels=labels, images=images, eps=levels_in(eps), attacks=attacks_in(attacks), steps=steps, restarts=restarts,
        strong=strong, transfer=transfer, elsewhere=elsewhere, reseed=reseed, controls=controls, rule=rule, seed=seed,
    )  # fmt: skip
    run_study(run, lambda opened: study_of_run(opened, asked), command="attack")
