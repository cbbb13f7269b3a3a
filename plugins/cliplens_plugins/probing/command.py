"""`cliplens probe`: measure how well single latents of a run predict a label."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)


@app.command()
def probe(
    folder: Annotated[Path, typer.Argument(help="Run folder of a finished run.")],
    label: Annotated[
        str, typer.Option(help="Label to predict: COLUMN=VALUE of the pairs' table or FACTOR=VALUE of the world.")
    ],
    k: Annotated[str, typer.Option(help="Numbers of latents that a probe reads, separated by commas.")] = "1,16",
    pairs: Annotated[int, typer.Option(min=10, help="Largest number of scored pairs to use.")] = 4096,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the controls.")] = 0,
) -> None:
    """Measure how well single latents predict a label: k-sparse probes, absorption and CKNNA, each with controls.

    Probes are fitted on 70 % of the pictures and scored by AUROC on the others (chance: 0.5). A probe of the
    activations is shown for comparison. The controls are probes fitted on permuted labels (`permuted`) and probes of
    random latents (`random`). Writes RUN/probing.json.

    Example: cliplens probe runs/world --label shape=circle
    """
    from cliplens.errors import InputError
    from cliplens.files import write_json
    from cliplens.run import OpenedRun, results
    from cliplens.runfolder import RunFolder

    run = OpenedRun(RunFolder.open(folder))
    try:
        ks = [int(number) for number in k.split(",")]
    except ValueError as error:
        raise InputError(
            expected="--k as whole numbers separated by commas", found=repr(k), fix="pass for example --k 1,16"
        ) from error
    if min(ks) < 1:
        raise InputError(expected="--k of at least 1", found=k, fix="pass for example --k 1,16")
    with results(run.folder, "probe", folder / "probing.json"):
        tables = probing_tables(run, label, ks, pairs, seed)
        write_json(folder / "probing.json", {"label": label, "pairs": pairs, "seed": seed, **tables})
    for title, rows in tables.items():
        _tell(title, rows)
    typer.echo(f"Written: {folder / 'probing.json'}")


def probing_tables(run: Any, label: str, ks: list[int], pairs: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of an `OpenedRun`: title -> rows.

    Raises:
        InputError: the label cannot be read, or the run has no activations, or several rows per pair.
    """
    from dataclasses import replace

    from cliplens.errors import InputError
    from cliplens.run.targets import label_of
    from cliplens.sites import MODALITIES
    from cliplens_plugins.probing.absorption import absorption
    from cliplens_plugins.probing.cknna import cknna, cknna_by_chance
    from cliplens_plugins.probing.sparse_probe import sparse_probe

    if run.asked.token in ("patches", "all"):
        raise InputError(
            expected="a run with one row per pair",
            found=f"--token {run.asked.token}",
            fix="use a run with --token auto, cls, eot or mean",
        )
    asked = label_of(replace(run.asked, target=label))
    probes: list[dict[str, Any]] = []
    absorbed: list[dict[str, Any]] = []
    near: list[dict[str, Any]] = []
    acts = run.scored_acts(pairs)
    encoded, centred_acts = run.dictionary.encode(acts), run.dictionary.centre(acts)
    has, pictures = asked(acts.ids), run.pictures_of(acts.ids)
    for modality in (m for m in MODALITIES if acts.of(m) is not None):
        codes, centred = encoded.of(modality).dense(), centred_acts.of(modality)
        for name, rows, counts in (("latents", codes, ks), ("activations", centred, [centred.shape[1]])):
            for found in sparse_probe(rows, has, pictures, counts, seed=seed):
                row = {"data": modality, "columns": name, "k": found.k, "auroc": found.auroc, "low": found.low}
                row |= {"high": found.high, "permuted": found.permuted, "random": found.random}
                probes.append({**row, "chosen": " ".join(map(str, found.latents[:8])) if name == "latents" else ""})
        decoder = run.dictionary.decoder_of(modality)
        absorbed.append({"data": modality, **vars(absorption(centred, codes, decoder, has, pictures, seed=seed))})
        if len(codes) > 10:
            some = slice(0, 2048)
            mean, spread = cknna_by_chance(centred[some], codes[some])
            value = cknna(centred[some], codes[some])
            near.append({"data": modality, "cknna": value, "by_chance": mean, "spread": spread})
    return {f"Probes of {label}": probes, "Absorption": absorbed, "CKNNA of activations and codes": near}


def _tell(title: str, rows: list[dict[str, Any]]) -> None:
    from cliplens.studies import figure
    from cliplens.terminal import print_table

    print_table(list(rows[0]) if rows else [], [[figure(v) for v in row.values()] for row in rows], title=title)
