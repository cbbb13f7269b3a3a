"""`cliplens advise`: list pairs to correct, and say whether to collect images or to rewrite captions."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def advise(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run of both towers.")],
    pairs: Annotated[int, typer.Option(help="Largest number of scored pairs to check.", min=20)] = 1024,
    target: Annotated[
        str | None,
        typer.Option(
            help="Other pairs that have the concepts in the shares you want; needed for the advice to collect images."
        ),
    ] = None,
    concepts: Annotated[int, typer.Option(help="Largest number of concepts to decide on.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
) -> None:
    """List pairs to correct, and say for each concept whether to collect images or to rewrite captions.

    The lists: captions that miss what the image shows or mention what it lacks, pairs that fit other pairs better, and
    near-duplicates. The CLIP score and a score like SAE-V are computed for comparison.

    Writes RUN/advice.html (a page to accept or reject the pairs), RUN/studies/advice.json and a section of the report.
    docs/advice.md explains them.

    Example: cliplens advise runs/first
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import OpenedRun, run_study
    from cliplens.studies import Study
    from cliplens_plugins.advice.of_run import AdviceOptions, study_of_run
    from cliplens_plugins.advice.page import save_page

    asked = AdviceOptions(pairs=pairs, target=target, concepts=concepts, seed=seed)

    def make(opened: OpenedRun) -> Study:
        study, listed, _ = study_of_run(opened, asked)
        indices = opened.pairs.indices([one.id for one in listed])
        pictures = {pair_id: opened.pairs[at].image for pair_id, at in indices.items()}
        shown = {pair_id: picture for pair_id, picture in pictures.items() if picture is not None}
        save_page(opened.folder.path / "advice.html", study, listed, shown)
        return study

    run_study(run, make, command="advise", name="advice", page="advice.html")
