"""`cliplens causal`: measure the effect of ablating latents of a run, in each tower."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)
USUAL = 16
LEGEND = (
    "image, text, both: change of the log probability of the own pair, in nats, with the latent ablated in that tower. "
    "Below 0: matching gets worse without the latent, so the latent helps. Above 0: matching gets better without it. "
    "random, spread: mean and standard deviation of the change along random directions of the same size in both "
    "towers; an effect within them is no evidence. causal: share of the image tower in the change, 1 = images, "
    "0 = captions."
)


@app.command()
def causal(
    folder: Annotated[Path, typer.Argument(help="Run folder of a finished run on both towers.")],
    latents: Annotated[
        str | None, typer.Option(help="Latents to ablate, such as 3,17,29; default: the 16 that fire most.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Number of scored pairs to measure on.")] = 256,
    random: Annotated[int, typer.Option(min=2, help="Number of matched random directions per latent.")] = 10,
) -> None:
    """Ablate latents in the image tower, the text tower or both, and measure the change in matching (nats per pair).

    Below 0, matching gets worse without the latent: the latent helps. The dictionary is spliced in at the hooks it was
    trained on, and its reconstruction error is kept. `causal` is the image tower's share of the change, the causal
    counterpart of mds. `random` and `spread` are the mean and the standard deviation of the change along random
    directions of the same size in both towers; an effect within them is no evidence. Writes RUN/causal.json.

    Example: cliplens causal runs/first --latents 3,17,29
    """
    from cliplens.errors import InputError
    from cliplens.files import write_json
    from cliplens.run import OpenedRun, results
    from cliplens.runfolder import RunFolder

    run = OpenedRun(RunFolder.open(folder))
    try:
        chosen = None if latents is None else [int(number) for number in latents.split(",")]
    except ValueError as error:
        raise InputError(
            expected="--latents as numbers such as 3,17,29",
            found=repr(latents),
            fix="separate the numbers with commas",
        ) from error
    with results(run.folder, "causal", folder / "causal.json"):
        rows = causal_rows(run, chosen, pairs, random)
        write_json(folder / "causal.json", {"pairs": pairs, "random": random, "latents": rows})
    _tell(rows)
    typer.echo(f"Written: {folder / 'causal.json'}")


def causal_rows(run: Any, latents: list[int] | None, pairs: int, random: int) -> list[dict[str, Any]]:
    """Return one row per latent of an `OpenedRun`: its effects, with its name and scores from the table."""
    import numpy as np

    from cliplens_plugins.modality.causal_splice import causal_effects

    table = run.table
    if latents is None:
        fires = np.nan_to_num(table["fire_image"]) + np.nan_to_num(table["fire_text"])
        latents = [int(k) for k in np.argsort(-fires, kind="stable")[:USUAL]]
    images, tokens = run.inputs(pairs)
    found = causal_effects(run.clip, images, tokens, run.dictionary, latents, n_random=random)
    return [
        {
            "latent": one.latent,
            "mds": float(table["mds"][one.latent]),
            "causal": one.modality,
            **{tower: getattr(one.matching, tower) for tower in ("image", "text", "both")},
            "random": one.matching.random["both"][0],
            "spread": one.matching.random["both"][1],
            "name": str(table["name"][one.latent]) if "name" in table else "",
        }
        for one in found
    ]


def _tell(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from cliplens.terminal import print_table, say

    console = Console(highlight=False)
    cells = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    print_table(list(rows[0]) if rows else [], cells, console=console)
    say(console, LEGEND)
