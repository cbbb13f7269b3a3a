"""`cliplens zero-shot`: which of some classes each picture shows."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)
_SHOWN = 20


@app.command(name="zero-shot")
def zero_shot(
    model: Annotated[str, typer.Argument(help="A model (see cliplens models), or a run folder, whose model is taken.")],
    pictures: Annotated[
        str, typer.Argument(help="A picture, a folder of pictures, or another source of --pairs, such as a CSV file.")
    ],
    classes: Annotated[
        str, typer.Option(help="Names of the classes, as 'cat,dog,tabby cat', or a text file with one per line.")
    ],
    pretrained: Annotated[str | None, typer.Option(help="Pretrained tag, or a local weights file.")] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Sentence with {} in place of the name; repeat for several. Default: seven of OpenAI's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for the probabilities of all pictures.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 64,
    device: Annotated[str | None, typer.Option(help="Device; by default the first available.")] = None,
) -> None:
    """Classify pictures by the names of classes, without training.

    Where pictures lie in folders named after the classes, the accuracy is printed too, with its interval and the
    accuracy of always answering the most frequent class.

    Example: cliplens zero-shot ViT-B-32 photos/ --classes cat,dog --pretrained laion2b_s34b_b79k
    """
    import csv

    from cliplens import api
    from cliplens.errors import InputError
    from cliplens.files import atomic_write
    from cliplens.hooked import TEMPLATES
    from cliplens.models import domain_note
    from cliplens.pairs import IMAGE_SUFFIXES, Pairs
    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder
    from cliplens_plugins.zero_shot.classified import accuracy, classified, cut_sentences, named_classes

    names = named_classes(classes)
    place = Path(pictures)
    if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
        pairs = Pairs([place.name], [place], None, name=place.name)
    else:
        pairs = api.read_pairs(pictures, modalities="image")
    run = OpenedRun(RunFolder.open(Path(model))) if Path(model, "run.toml").exists() else None
    clip = api.load(model, pretrained, device=device) if run is None else run.clip
    ids, chances, bad = classified(clip, pairs, names, templates=template or TEMPLATES, batch_size=batch_size)
    if not ids:
        name, reason = next(iter(bad.items()), (pictures, "no pictures"))
        raise InputError(
            expected="a picture that can be opened",
            found=f"{name}: {reason}",
            fix="pass the file or folder of pictures",
        )
    best = [names[row.argmax()] for row in chances]
    for pair_id, guess, row in list(zip(ids, best, chances, strict=True))[:_SHOWN]:
        second = sorted(row)[-2] if len(names) > 1 else 0.0
        typer.echo(f"{pair_id}  {guess}  {row.max():.3f}  (next {second:.3f})")
    if len(ids) > _SHOWN:
        typer.echo(f"... and {len(ids) - _SHOWN:,} more" + ("" if out else "; --out FILE.csv writes all"))
    for pair_id, reason in list(bad.items())[:_SHOWN]:
        typer.echo(f"{pair_id}  not read: {reason}")
    typer.echo(
        "Probabilities compare the classes with each other; they do not say whether a picture shows any of them."
    )
    note = domain_note(clip.identity.name, pictures)
    if note:
        typer.echo(note)
    cut = cut_sentences(clip, names, template or TEMPLATES)
    if cut:
        count = len(names) * len(template or TEMPLATES)
        typer.echo(
            f"{cut} of the {count} sentences about the classes are longer than the model's context and were truncated,"
            " which may cut off the name. Use a shorter --template, such as 'a {}'."
        )
    told = accuracy(ids, best, names)
    if told is not None:
        typer.echo(
            f"Accuracy {told.share:.3f} ({told.low:.3f} to {told.high:.3f}) over {told.pictures:,} pictures in folders"
            f" of that name; always the most frequent class: {told.largest:.3f}"
        )
    if out is not None:
        with atomic_write(out) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["picture", "class", *names])
            writer.writerows([i, b, *(f"{v:.6f}" for v in row)] for i, b, row in zip(ids, best, chances, strict=True))
        typer.echo(f"Written: {out}")
