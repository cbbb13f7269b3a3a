"""`cliplens explain`: why a picture and a caption match, as a picture."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A model (see cliplens models), or a run folder, whose model is taken.")],
    picture: Annotated[Path, typer.Argument(help="A picture.")],
    caption: Annotated[str, typer.Argument(help="A caption, in quotation marks.")],
    pretrained: Annotated[str | None, typer.Option(help="Pretrained tag, or a local weights file.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="relevance (attention times its gradient of the similarity), rollout (attention of all blocks), or "
            "attention (of the last block). Only relevance of the picture depends on the caption."
        ),
    ] = "relevance",
    first_block: Annotated[int, typer.Option(help="Count blocks from this one on; -1 is the last.")] = 0,
    latent: Annotated[
        int | None, typer.Option(help="Shade by this latent of the run's dictionary, which needs a residual hook.")
    ] = None,
    activation: Annotated[
        bool, typer.Option("--activation", help="With --latent: shade by its activation, not by its effect.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("explanation.png"),
    device: Annotated[str | None, typer.Option(help="Device; by default the first available.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random patches of the control.")] = 0,
) -> None:
    """Draw why a picture and a caption match: patches and words, shaded by how much they count.

    Prints the similarity, and a control: how much it falls when the marked patches are greyed, against random patches.

    Example: cliplens explain ViT-B-32 cat.png "a cat on a sofa" --pretrained laion2b_s34b_b79k

    Where a latent of a run brings the two together: cliplens explain runs/first cat.png "a cat" --latent 12
    """
    from PIL import Image

    from cliplens import api
    from cliplens.analysis import explain_pair
    from cliplens.errors import BadPictureError, InputError
    from cliplens.models import domain_note
    from cliplens.pairs import tokenised
    from cliplens.pictures import open_picture
    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.explain.latent import explain_latent

    run = OpenedRun(RunFolder.open(Path(model))) if Path(model, "run.toml").exists() else None
    if latent is not None and run is None:
        raise InputError(
            expected="a run folder, whose dictionary has the latent",
            found=model,
            fix="pass the run in place of the model",
        )
    if out.suffix.lower() not in Image.registered_extensions():
        raise InputError(expected="--out with the ending of a picture", found=str(out), fix="pass for example why.png")
    try:
        opened = open_picture(picture)
    except BadPictureError as error:
        raise InputError(
            expected=f"a picture at {picture}", found=error.reason, fix="pass the file of a picture"
        ) from error
    clip = api.load(model, pretrained, device=device) if run is None else run.clip
    if run is not None and latent is not None:
        drawn = explain_latent(clip, run.dictionary, latent, opened, caption, effect=not activation)
        typer.echo(f"Latent {latent}: {'activation' if activation else 'effect on the similarity'}, red above 0.")
    else:
        found = explain_pair(clip, opened, caption, method=method, first_block=first_block, seed=seed)
        drawn = found.drawn()
        typer.echo(f"{found}")
        if clip.tokenizer is not None and tokenised([caption], clip.tokenizer).truncated:
            typer.echo("The caption is longer than the model's context and was truncated to the words shown.")
    note = domain_note(clip.identity.name)
    if note:
        typer.echo(note)
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(out)
    typer.echo(f"Written: {out}")
