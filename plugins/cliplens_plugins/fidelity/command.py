"""`cliplens fidelity`: measure the model with a run's dictionary spliced in, and the stability of its latents."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def fidelity(
    folder: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    against: Annotated[
        Path | None,
        typer.Option(help="Run folder with another seed: report the share of latents that it also finds."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Number of scored pairs for retrieval and contrastive loss.")] = 512,
) -> None:
    """Measure retrieval and contrastive loss of the model with the dictionary spliced in.

    The same figures are given for the model alone, for zero ablation and for mean ablation, and the fraction of each
    that the dictionary recovers, from either ablation (0) to the model (1). Also lists latents that share their top
    samples with another latent. With --against, the share of latents that the other run also finds is given per
    modality class, beside chance. Writes RUN/fidelity.json.

    Example: cliplens fidelity runs/first --against runs/second
    """
    from cliplens.files import write_json
    from cliplens.run import OpenedRun, results
    from cliplens.runfolder import RunFolder

    run = OpenedRun(RunFolder.open(folder))
    other = None if against is None else OpenedRun(RunFolder.open(against))
    with results(run.folder, "fidelity", folder / "fidelity.json"):
        tables = fidelity_tables(run, other, pairs)
        write_json(folder / "fidelity.json", tables)
    for title, rows in tables.items():
        _tell(title, rows)
    typer.echo(f"Written: {folder / 'fidelity.json'}")


def fidelity_tables(run: Any, other: Any, pairs: int) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of an `OpenedRun` by title; `other` is a second `OpenedRun` for the stability, or None."""
    from cliplens.exemplars import load_exemplars
    from cliplens_plugins.fidelity.downstream import downstream, recovered
    from cliplens_plugins.fidelity.stability import contained, duplicates, stability

    tables: dict[str, list[dict[str, Any]]] = {}
    if len(run.asked.sides) > 1:
        images, tokens = run.inputs(pairs)
        figures = downstream(run.clip, images, tokens, run.dictionary, run.asked.sites)
        of_model = figures["model"]
        tables[f"Downstream, {len(images)} pairs"] = [
            {
                "figure": figure,
                **{condition: row[figure] for condition, row in figures.items()},
                **{
                    f"recovered from {end}": recovered(figures, figure, end)
                    for end in ("zero ablation", "mean ablation")
                },
            }
            for figure in of_model
        ]
    for modality, exemplars in zip(("images", "captions"), load_exemplars(run.folder.exemplars), strict=True):
        if exemplars is not None:
            same = [{"latent": a, "other": b, "jaccard": index} for a, b, index in duplicates(exemplars.at)]
            inside = [{"narrow": a, "broad": b, "share": share} for a, b, share in contained(exemplars.at)]
            tables[f"Same top {modality}"], tables[f"Top {modality} contained"] = same, inside
    if other is not None:
        alive = run.table["alive"].astype(bool)
        classes = run.table.columns.get("modality")
        classes = None if classes is None else classes[alive]
        rows = stability(run.dictionary.decoder[alive], other.dictionary.decoder, classes)
        tables[f"Found again in {other.folder.path}"] = list(rows)
    return tables


def _tell(title: str, rows: list[dict[str, Any]], most: int = 10) -> None:
    from cliplens.studies import figure
    from cliplens.terminal import print_table

    said = f"{title}: {len(rows)}" if len(rows) > most or not rows else title
    cells = [[figure(v) for v in row.values()] for row in rows[:most]]
    print_table(list(rows[0]) if rows else [], cells, title=said)
