"""`cliplens export`: write a run for other tools into a local folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Export a run for other tools.\n\nExample: cliplens export table runs/first --out latents.csv",
)
Folder = Annotated[Path, typer.Argument(help="Run folder of a finished run.")]
Out = Annotated[Path, typer.Option(help="Folder (or, for `table`, file) to write. A folder must be missing or empty.")]


@app.command()
def neuronpedia(
    folder: Folder,
    out: Out,
    release: Annotated[str, typer.Option(help="Name of the release on Neuronpedia.")] = "cliplens",
    creator_id: Annotated[str, typer.Option(help="Id of the Neuronpedia account that imports it.")] = "cliplens",
) -> None:
    """Write Neuronpedia's import files (features, activations, explanations), with pictures and metrics next to them.

    Example: cliplens export neuronpedia runs/first --out neuronpedia
    """
    from cliplens.run import results
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.neuronpedia import export_neuronpedia

    run = RunFolder.open(folder)
    with results(run, "export neuronpedia", out, room=exported_bytes(run)):
        made = export_neuronpedia(run, out, release=release, creator_id=creator_id)
    _tell(made)


@app.command()
def huggingface(
    folder: Folder,
    out: Out,
    pictures: Annotated[bool, typer.Option(help="Also write thumbnails of the top samples.")] = True,
    push_to: Annotated[
        str | None, typer.Option("--push", help="Upload the folder as this Hugging Face repository (owner/name).")
    ] = None,
    public: Annotated[bool, typer.Option(help="Make the uploaded repository public; it is private otherwise.")] = False,
) -> None:
    """Write a folder that SAELens loads, with a model card. Upload it only with --push.

    Example: cliplens export huggingface runs/first --out card --no-pictures
    """
    from cliplens.run import results
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.huggingface import export_huggingface, push

    run = RunFolder.open(folder)
    with results(run, "export huggingface", out, room=exported_bytes(run)):
        made = export_huggingface(run, out, pictures=pictures)
    _tell(made)
    if push_to is not None:
        typer.echo(push(made, push_to, private=not public))


@app.command()
def table(folder: Folder, out: Out) -> None:
    """Write the latent table as .csv or .parquet, by the ending of --out.

    Example: cliplens export table runs/first --out latents.csv
    """
    from cliplens.errors import InputError
    from cliplens.records import LatentTable
    from cliplens.run import results
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.export.tables import export_table

    run = RunFolder.open(folder)
    if not run.latents.exists():
        raise InputError(
            expected=f"a scored run in {folder}",
            found="no latents.parquet",
            fix="finish the run with cliplens run, then export it",
        )
    with results(run, "export table", out, room=2 * run.latents.stat().st_size):
        export_table(LatentTable.load(run.latents), out)
    _tell(out)


def exported_bytes(run: Any) -> int:
    """Return the approximate size of an export of a run in bytes: dictionary, table and pictures."""
    kept = (*run.sae.rglob("*"), *run.exemplars.rglob("*"), run.latents)
    return sum(path.stat().st_size for path in kept if path.is_file())


def _tell(path: Path) -> None:
    typer.echo(f"Written: {path}")
