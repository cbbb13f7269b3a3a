"""Does editing latents steer generated pictures better than simple directions, and with which side effects?

    python benchmarks/steering.py [--samples 96] [--seeds 0 1 2] [--judge FILE] [--figure FILE.png] [--no-pictures]

The script uses the embedded world, whose factors are known. Latents, their typical levels, class means, modality
classes and the dose are chosen on one set of pairs; everything is scored on scenes of another seed. The dose is the one
with the most success on the first set with all side effects within 10 %, by the probe. The target of a
sample is a random other value of the attribute. All methods and doses use the same samples, targets and seeds.

There are two readers: `probe`, a linear probe on the edited embedding, and `pictures`, the independent judge network on
the pictures that the embedded generator draws (from image embeddings; from captions in the mixing table). A side effect
is an attribute whose reading differs from dose 0.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from _bench import Bench, bench
from _steering.clip_itself import clip_itself
from _steering.data import (
    CHOOSE_SEED,
    DOSES,
    QUICK_DOSES,
    REFERENCE_SEED,
    SCORE_SEED,
    TRAIN_SEED,
    embedded,
    said,
    sample_clip,
    trained,
)
from _steering.methods import Chosen
from _steering.mixing import mixing
from _steering.readers import Probe, Reader, picture_reader
from _steering.scoring import score
from _steering.tables import clip_table, edit_tables, figure, mixing_table
from cliplens.world import draw_scenes


def main() -> None:
    with bench(
        __file__,
        __doc__,
        samples=(96, "scenes per attribute and method"),
        seeds=([0], "of the dictionary and the controls"),
        d_sae=256,
        k=8,
        rows=(409_600, "activations the dictionary is trained on"),
        quick=(False, "about a minute: 24 scenes, one seed, two doses"),
        judge=Path(tempfile.gettempdir()) / "cliplens-world-judge.safetensors",
        parts=(["edits", "mixing", "clip"], "which tables to make"),
        figure=(None, "PNG to write"),
        no_pictures=(False, "read embeddings only; needs no generator"),
    ) as b:
        doses: Sequence[float] = DOSES
        if b.args.quick:
            b.args.samples, b.args.seeds, doses = 24, b.args.seeds[:1], QUICK_DOSES
        found = measure(b, doses)
        edit_tables(b, found["rows"])
        mixing_table(b, found["mixing"])
        if found["clip"]:
            clip_table(b, found["clip"])
        b.keep("steering", found)
        if b.args.figure and found["rows"]:
            figure(found["rows"], Path(b.args.figure))


def measure(b: Bench, doses: Sequence[float]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the three kinds of tables."""
    args, clip = b.args, sample_clip()
    sizes = {CHOOSE_SEED: 4096, SCORE_SEED: max(1024, 4 * args.samples), REFERENCE_SEED: max(512, 2 * args.samples)}
    choose, final, other = (embedded(clip, draw_scenes(n, seed=s)) for s, n in sizes.items())
    readers: dict[str, Reader] = {"probe": Probe(embedded(clip, draw_scenes(4096, seed=TRAIN_SEED)))}
    if not args.no_pictures:
        readers["pictures"] = picture_reader(args.judge)
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "mixing": [], "clip": []}
    cases = [(m, a) for m in ("image", "text") for a in said(m)] if "edits" in args.parts else []
    for seed in args.seeds:
        chosen = Chosen(trained(clip, seed, args.d_sae, args.k, args.rows), choose)
        counts = {c: int(np.sum(chosen.classes == c)) for c in ("ImgD", "TextD", "CrossD", "dead")}
        b.note(f"latents per class, seed {seed}", counts)
        for modality, attribute in tqdm(cases, delay=2, desc=f"seed {seed}"):
            by = readers if modality == "image" else {"probe": readers["probe"]}
            found["rows"] += score(chosen, final, modality, attribute, by, args.samples, seed, doses)
        if "mixing" in args.parts:
            found["mixing"] += mixing(chosen, final, other, readers, 2 * args.samples, seed)
        if "clip" in args.parts and seed == args.seeds[0]:
            found["clip"] = clip_itself(chosen, final, 512, seed)
    return found


if __name__ == "__main__":
    main()
