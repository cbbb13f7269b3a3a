"""`cliplens advise`: which pairs to mend, and whether to collect images or rewrite captions."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def advise(
    run: Annotated[Path, typer.Argument(help="A run folder, of both towers.")],
    pairs: Annotated[int, typer.Option(help="Scored pairs to look through, at most.", min=20)] = 1024,
    target: Annotated[
        str | None,
        typer.Option(help="Pairs whose shares of concepts are aimed at; without, no image is asked for."),
    ] = None,
    concepts: Annotated[int, typer.Option(help="Concepts to decide on, at most.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Captions that miss what the image shows or say what it lacks, pairs that fit others, near-duplicates; per
    concept: collect images, rewrite captions, or no advice. With CLIP score and an SAE-V-type score beside it.

    Writes RUN/advice.html to work through, RUN/studies/advice.json and a section of the report.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.run import OpenedRun, results, write_report
    from cliplens.runfolder import RunFolder
    from cliplens.studies import print_study, write_study
    from cliplens_plugins.advice.of_run import Asked, study_of_run
    from cliplens_plugins.advice.page import save_page

    opened = OpenedRun(RunFolder.open(run))
    page = opened.folder.path / "advice.html"
    with results(opened.folder, "advise", opened.folder.studies / "advice.json", page):
        study, listed, _ = study_of_run(opened, Asked(pairs=pairs, target=target, concepts=concepts, seed=seed))
        place = opened.pairs.indices([one.id for one in listed])
        pictures = {pair_id: opened.pairs[at].image for pair_id, at in place.items()}
        save_page(page, study, listed, {i: picture for i, picture in pictures.items() if picture is not None})
        path = write_study(opened.folder, study)
    print_study(study)
    typer.echo(f"Written: {path}")
    typer.echo(f"Page: {page}")
    typer.echo(f"Report: {write_report(opened.folder)}")
