"""`cliplens export`: write a run for other tools into a local folder."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Export a run for other tools.")
Folder = Annotated[Path, typer.Argument(help="A run folder.")]
Out = Annotated[Path, typer.Option(help="Folder or file to write.")]


@app.command()
def neuronpedia(
    folder: Folder,
    out: Out,
    release: Annotated[str, typer.Option(help="Name of the release on Neuronpedia.")] = "cliplens",
    creator_id: Annotated[str, typer.Option(help="Id of the Neuronpedia account that will import it.")] = "cliplens",
) -> None:
    """Write Neuronpedia's import files: features, activations, explanations; pictures and metrics beside them."""
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.neuronpedia import export_neuronpedia

    _tell(export_neuronpedia(RunFolder.open(folder), out, release=release, creator_id=creator_id))


@app.command()
def huggingface(
    folder: Folder,
    out: Out,
    pictures: Annotated[bool, typer.Option(help="Write thumbnails of the top samples too.")] = True,
    push_to: Annotated[str | None, typer.Option("--push", help="Upload as this repository (owner/name).")] = None,
    public: Annotated[bool, typer.Option(help="Make the uploaded repository public.")] = False,
) -> None:
    """Write a folder that SAELens loads, with a model card. Uploads only with --push."""
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.huggingface import export_huggingface, push

    made = export_huggingface(RunFolder.open(folder), out, pictures=pictures)
    _tell(made)
    if push_to is not None:
        typer.echo(push(made, push_to, private=not public))


@app.command()
def table(folder: Folder, out: Out) -> None:
    """Write the latent table as .csv or .parquet."""
    from cliplens.errors import InputError
    from cliplens.records import LatentTable
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.tables import export_table

    run = RunFolder.open(folder)
    if not run.latents.exists():
        raise InputError(expected=f"a scored run in {folder}", found="no latents", fix="let the run finish first")
    _tell(export_table(LatentTable.load(run.latents), out))


def _tell(path: Path) -> None:
    typer.echo(f"Written: {path}")
