"""`cliplens words`: modality classes by kind of word, languages, and labels of a fixed vocabulary."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False)


@app.command()
def words(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run of both towers.")],
    pairs: Annotated[int, typer.Option(help="Largest number of scored pairs to read.", min=20)] = 1024,
    tagger: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with the columns word and kind, or a folder with the files of NLTK's tagger. Default: "
            "TextBlob's English lexicon."
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Column of the pairs with the language of each caption. Emoji need none."),
    ] = None,
    tagged: Annotated[str, typer.Option(help="Language whose words are tagged.")] = "en",
    names_in: Annotated[
        str, typer.Option(help="Languages to name latents in, as they stand in the column: ja,de.")
    ] = "",
    vocabulary: Annotated[
        Path | None,
        typer.Option(help="Map names to this vocabulary: a file with one label per line, or WordNet's folder dict."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for the label of each latent, with --vocabulary.")] = None,
    rule: Annotated[
        Literal["modality", "modality_paper", "modality_significant"],
        typer.Option(help="Column of the latent table with the classes."),
    ] = "modality",
    draws: Annotated[int, typer.Option(help="Number of bootstrap samples and shuffles.", min=20)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)] = 0,
) -> None:
    """Compare modality classes between nouns, verbs, adjectives, relations and numbers; look at languages.

    Each latent stands for the word its codes follow; the classes of a kind are compared with shuffled kinds, random
    latents and an untrained dictionary. With captions in several languages: what the tokenizer makes of each, which
    latents are bound to one, and names in the language you ask for. With a vocabulary: a label for each name.

    Writes RUN/studies/words.json and a section of the report. docs/words.md explains the figures.

    Example: cliplens words runs/first
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cliplens.errors import InputError
    from cliplens.run import OpenedRun, run_study
    from cliplens.studies import Study
    from cliplens_plugins.words.of_run import study_of_run
    from cliplens_plugins.words.options import WordsOptions
    from cliplens_plugins.words.standard import write_labels

    if out is not None and vocabulary is None:
        raise InputError(
            expected="--vocabulary beside --out", found="no vocabulary", fix="pass --vocabulary labels.txt"
        )
    wanted = tuple(part.strip() for part in names_in.split(",") if part.strip())
    asked = WordsOptions(
        pairs=pairs, tagger=tagger, language=language, tagged=tagged, names_in=wanted, vocabulary=vocabulary,
        rule=rule, draws=draws, seed=seed,
    )  # fmt: skip

    def make(opened: OpenedRun) -> Study:
        study, labels = study_of_run(opened, asked)
        if out is not None:
            write_labels(out, labels)
            typer.echo(f"Labels: {out}")
        elif vocabulary is not None:
            typer.echo("To write the label of every latent: --out labels.csv")
        return study

    run_study(run, make, command="words")
