"""`cliplens fidelity`: what the model can still do with a run's dictionary in its way, and whether its latents last."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def fidelity(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    against: Annotated[
        Path | None, typer.Option(help="Another run, of another seed: are the same latents found again?")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Scored pairs to match.")] = 512,
) -> None:
    """Retrieval and contrastive loss with the dictionary spliced in, beside the model and both ablations.

    Also: latents whose top samples are the same or contained in another's, and with --against the share of latents the
    other run finds again, per modality class. Writes RUN/fidelity.json.
    """
    from cliplens.files import write_json
    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder

    run = OpenedRun(RunFolder.open(folder))
    other = None if against is None else OpenedRun(RunFolder.open(against))
    tables = fidelity_tables(run, other, pairs)
    write_json(folder / "fidelity.json", tables)
    for title, rows in tables.items():
        _tell(title, rows)
    typer.echo(f"Written: {folder / 'fidelity.json'}")


def fidelity_tables(run: Any, other: Any, pairs: int) -> dict[str, list[dict[str, Any]]]:
    """Title -> rows, of an `OpenedRun`, and of another to compare with or None."""
    from cliplens.exemplars import load_exemplars
    from cliplens_plugins.fidelity.downstream import downstream
    from cliplens_plugins.fidelity.stability import contained, duplicates, stability

    tables: dict[str, list[dict[str, Any]]] = {}
    if len(run.asked.sides) > 1:
        images, tokens = run.inputs(pairs)
        figures = downstream(run.clip, images, tokens, run.dictionary, run.asked.sites)
        of_model = figures["model"]
        tables[f"Downstream, {len(images)} pairs"] = [
            {"figure": figure, **{condition: row[figure] for condition, row in figures.items()}} for figure in of_model
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
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{title}[/]: {len(rows)}" if len(rows) > most or not rows else f"[bold]{title}[/]")
    if rows:
        table = Table(*rows[0], box=None)
        for row in rows[:most]:
            table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
        console.print(table)
