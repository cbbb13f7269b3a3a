"""`cliplens bias`: measure a bias before and after edits of latents and published methods."""

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
            help="Labelled images: waterbirds:FOLDER, celeba:FOLDER, fairface:FOLDER, utkface:FOLDER, or emoji:noto; "
            "default, for runs of the embedded world: drawings with a planted bias."
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Attribute of the data set that should not matter; its values are the groups.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Attribute of the data set to classify.")] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="Text file with one sentence per line, to rank images by; default: the target classes."),
    ] = None,
    images: Annotated[int, typer.Option(help="Largest number of images to fit on, and to test on.", min=8)] = 2000,
    rate: Annotated[
        float, typer.Option(help="Rate of the planted bias: 0 is none, 1 the strongest.", min=0, max=1)
    ] = 0.95,
    pairs: Annotated[int, typer.Option(help="Number of scored pairs of the run to measure retrieval on.", min=2)] = 384,
    top: Annotated[
        int, typer.Option(help="Number of latents to edit: those that tell the groups apart best.", min=1)
    ] = 12,
    controls: Annotated[int, typer.Option(help="Number of random sets of latents to compare with.", min=0)] = 3,
    draws: Annotated[int, typer.Option(help="Number of bootstrap samples of the sentences, at most 30.", min=2)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
) -> None:
    """Measure bias in zero-shot classification, rankings and probes, before and after methods that reduce it.

    The methods are SEM, S&P Top-K, Orth-Proj, Orth-Cali, LEACE and edits of latents by class; edits of random latents
    are the control. Also shown: which latents carry the attribute, and in which modality a planted bias lies.

    Writes RUN/studies/bias.json and a section of the report. docs/bias.md explains the figures.

    Example: cliplens bias runs/first --data waterbirds:data/waterbirds
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import run_study
    from cliplens_plugins.bias.of_run import study_of_run
    from cliplens_plugins.bias.options import BiasOptions

    asked = BiasOptions(
        data=data, group=group, target=target, queries=queries, images=images, rate=rate, pairs=pairs, top=top,
        controls=controls, draws=draws, seed=seed,
    )  # fmt: skip
    run_study(run, lambda opened: study_of_run(opened, asked), command="bias")
