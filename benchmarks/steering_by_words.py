"""Does the documented edit work? `red->blue=+2x` on the demo's own run, read by a network and by the palette.

    python benchmarks/steering_by_words.py [--seeds 0 1 2] [--pictures 48]

For each seed a run with the demo's settings is trained and scored. Red pictures that the dictionary was not trained on
are embedded, edited and drawn. Two readers say whether the figure is blue: a convolutional network that has seen
pictures only, and the colour of the world's palette nearest to the figure's pixels, which is no network and knows
nothing of cliplens. Beside the edit: a random edit of equal norm.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from _bench import Bench, Estimate, bench
from _steering.palette import nearest_colour
from cliplens.cli import DEMO_SETTINGS
from cliplens.edits import LatentSteering
from cliplens.run import run as whole_run
from cliplens.settings import Settings
from cliplens.world import FACTORS, draw_scenes, ground_truth, render
from cliplens_plugins.generators import WorldGenerator
from cliplens_plugins.generators.world_reader import WorldReader
from cliplens_plugins.steering import RandomControl, effect, share_of
from cliplens_plugins.steering.parsing import parse_edits
from cliplens_plugins.steering.sources import Run

EDIT, DOSES = "red->blue=+2x", (0.0, 0.25, 0.5, 0.75, 1.0, 2.0)
RED, BLUE = (FACTORS["colour"].values.index(name) for name in ("red", "blue"))


def main() -> None:
    with bench(
        __file__,
        __doc__,
        seeds=[0, 1, 2],
        pictures=(48, "held-out red pictures per seed"),
        runs=(None, "folder that keeps the runs, one per seed; default a temporary one"),
    ) as b:
        with tempfile.TemporaryDirectory() as made:
            kept = Path(b.args.runs or made)
            drawn = {seed: over_doses(opened(kept / f"seed-{seed}", seed), b.args.pictures) for seed in b.args.seeds}
        report(b, drawn)


def opened(folder: Path, seed: int) -> Run:
    """Return the demo's run of a seed, made where it is not there yet."""
    settings = Settings(**{**DEMO_SETTINGS, "seed": seed})  # type: ignore[arg-type]
    return Run(whole_run(settings, folder, until="name", resume=folder.exists()))


def over_doses(run: Run, count: int) -> dict[str, dict[float, list[Image.Image]]]:
    """Return edit -> dose -> pictures of the same red scenes."""
    red = run.held_out(count, lambda i: int(ground_truth([i]).factors["colour"][0]) == RED)
    rows = run.embed([pair.image for pair in red])  # type: ignore[misc]
    edits = parse_edits(EDIT, lambda words: run.group(words, "image"))
    edit, draw = LatentSteering(run.dictionary, edits), WorldGenerator()
    return {
        name: {dose: list(draw.generate(one.at_dose(dose).rows(rows, "image"), seed=0)) for dose in DOSES}
        for name, one in ((EDIT, edit), ("random edit of equal norm", RandomControl(edit)))
    }


def report(b: Bench, drawn: dict[int, Any]) -> None:
    judge = WorldReader()
    b.table(
        f"Red pictures under {EDIT}, {len(b.args.seeds)} runs together",
        {"edit": "", "dose": "g", "n": "", "blue by the network": ".2f", "blue by the palette": ".2f"}
        | {"worst side effect": ".2f", "attribute": ""},
    )
    for name in next(iter(drawn.values())):
        before = [picture for seed in b.args.seeds for picture in drawn[seed][name][0.0]]
        for dose in DOSES:
            after = [picture for seed in b.args.seeds for picture in drawn[seed][name][dose]]
            found = effect(judge.read(before), judge.read(after), "colour", BLUE, dose=dose)
            attribute, worst = max(found.changed.items(), key=lambda item: item[1].share)
            by_palette = share_of(np.array([nearest_colour(picture) == BLUE for picture in after]))
            shares = (found.success, by_palette, worst)
            b.row(name, dose, found.success.n, *(Estimate(s.share, s.low, s.high) for s in shares), attribute)
    b.table("The palette as a reader of true pictures", {"pictures": "", "read as they are": ".3f", "as blue": ".3f"})
    for row in trusted(8 * b.args.pictures):
        b.row(*row)


def trusted(count: int) -> Sequence[tuple[str, float, float]]:
    """Return how often the palette reads true pictures rightly, and how often as blue."""
    scenes = draw_scenes(count, seed=800_000)
    read = np.array([nearest_colour(Image.fromarray(picture)) for picture in render(scenes)])
    true = scenes["colour"]
    kinds = {"all colours": true >= 0, "blue": true == BLUE, "red": true == RED}
    return [(name, float((read == true)[k].mean()), float((read == BLUE)[k].mean())) for name, k in kinds.items()]


if __name__ == "__main__":
    main()
