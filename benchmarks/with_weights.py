"""The tables of the papers on your own weights and data, in one go, each beside the published row.

    python benchmarks/with_weights.py --model ViT-B-16 --pretrained open_clip_pytorch_model.bin \\
        --pairs annotations/captions_val2017.json --out with-weights

`--pairs` is anything `cliplens run --pairs` reads, such as COCO's captions or CC3M's TSV. Needs no network if weights
and data are local. The run is kept in `--out` and resumed. Writes RESULTS/with_weights.json and OUT/with_weights.html.

Published rows were measured on other data, other dictionaries, or another model, as each row says: they are anchors,
not targets. A table that cannot be made says why.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _bench import Bench, Estimate, bench
from _page import save_tables
from cliplens.arrays import unit_rows
from cliplens.errors import CliplensError
from cliplens.run import EMBEDDING, OpenedRun, Settings, by_modality, run, scored_on
from cliplens.sites import Site
from cliplens.statistics import mean_interval
from cliplens.store import Cache
from cliplens_plugins.bias.of_run import study_of_run as bias_of_run
from cliplens_plugins.bias.options import BiasOptions
from cliplens_plugins.contribution.of_run import study_of_run as contribution_of_run
from cliplens_plugins.contribution.options import ContributionOptions
from cliplens_plugins.fidelity.command import fidelity_tables
from cliplens_plugins.modality.gap import modality_gap
from cliplens_plugins.monosemanticity import ms

PACH = "Pach et al., arXiv 2504.02821 v1, table 1: CLIP ViT-L/14-336, layer 11, ImageNet, another judge"
MS_ROWS = {
    "raw neurons": (0.50, 0.47),
    "dictionary, 1 x width": (0.80, 0.41),
    "dictionary, 16 x width": (0.95, 0.24),
    "dictionary, 64 x width": (1.00, 0.20),
}
"""Largest and smallest MS."""
GAP = {
    "CLIP ViT-B/16, 500 pairs of COCO": (0.851, "embeddings committed at github.com/Weixin-Liang/Modality-Gap, 8e20cb2")
}
"""Distance between the means of both modalities, computed from the files of the authors of arXiv 2203.02053."""
SEM = "output files of mardgui/SEM (arXiv 2603.19028), ViT-B/16"
SEM_ROWS = {
    "none": (0.346, 0.250),
    "Orth-Proj": (0.521, 0.288),
    "Orth-Cali": (0.596, 0.371),
    "SEM_bi": (0.256, 0.545),
    "BendVLM": (0.105, 0.240),
    "BendVLM and SEM_bi": (0.092, 0.636),
}
"""MaxSkew@500 on FairFace (gender, stereotypes), and worst-group accuracy on Waterbirds."""


def of_rows(b: Bench, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys as one table."""
    if not rows:
        return
    b.table(title, list(rows[0]))
    for row in rows:
        b.row(*(row.get(name) for name in rows[0]))


def part(b: Bench, title: str, make: Callable[[], None]) -> None:
    """Make a part. One that cannot be made is said in a table of its own, and the others go on."""
    try:
        make()
    except (CliplensError, ValueError, RuntimeError) as error:
        b.table(f"{title}: not made", {"why": ""})
        b.row(str(error))


def classes(b: Bench, opened: OpenedRun) -> None:
    """Print the modality classes by both rules (Yan et al., arXiv 2502.14888; no readable table to compare with)."""
    table = opened.table
    rules = {"fixed cuts 0.2, 0.8": "modality", "rule of the paper": "modality_paper"}
    b.table("Modality classes of latents (MDS)", {"class": "", **dict.fromkeys(rules, "")})
    for name in ("ImgD", "CrossD", "TextD", "dead"):
        b.row(name, *(int((table[column].astype(str) == name).sum()) for column in rules.values()))


def ablation(b: Bench, opened: OpenedRun, pairs: int, controls: int) -> None:
    """Print which class carries retrieval and the contrastive loss, beside random latents and an untrained twin."""
    study = contribution_of_run(
        opened, ContributionOptions(pairs=pairs, controls=controls, resamples=min(controls, 20))
    )
    for title, rows in study.tables.items():
        of_rows(b, f"Ablation of classes: {title}", rows)


def monosemanticity(b: Bench, opened: OpenedRun, images: int) -> None:
    """Print MS of latents and of raw neurons on images, and the agreement with the pair-by-pair definition."""
    cache = Cache.open(opened.folder.activations).by_picture(opened.pairs.image_ids)
    keep = scored_on(opened.asked)
    raw = first(cache, by_modality(opened.asked.sites), keep, images)
    near = first(cache, by_modality([Site(side, EMBEDDING) for side in opened.asked.sides]), keep, images)
    codes = opened.dictionary.batch(raw).codes.image
    if codes is None or raw.image is None or near.image is None or len(raw.ids) != len(near.ids):
        raise ValueError("Expected one row of images per pair. Fix: choose a hook of the vision tower, one position.")
    judged = unit_rows(near.image.double())
    b.table(f"MS of images, {len(raw.ids)} images, judged by the model itself", ["of", "largest", "smallest", "mean"])
    for name, acts in (("raw neurons", raw.image.double()), ("latents", codes.dense().double())):
        scores = np.asarray(ms(acts, judged))
        known = scores[~np.isnan(scores)]
        b.row(name, known.max(initial=np.nan), known.min(initial=np.nan), Estimate(*mean_interval(scores)))
    few = slice(0, min(len(judged), 128))
    slow = pair_by_pair(codes.dense().double()[few], judged[few])
    fast = np.asarray(ms(codes.dense().double()[few], judged[few]))
    b.note("largest difference of MS from the loop over pairs of sae-for-vlm", float(np.nanmax(np.abs(slow - fast))))
    b.table("MS as published", ["of", "largest", "smallest", "source"])
    for name, (largest, smallest) in MS_ROWS.items():
        b.row(name, largest, smallest, PACH)


def first(cache: Cache, sites: Mapping[str, Any], keep: Any, count: int) -> Any:
    """Return the first scored rows of a cache."""
    return next(iter(cache.batches(**sites, keep=keep, batch_size=count)))


def pair_by_pair(acts: torch.Tensor, judged: torch.Tensor) -> np.ndarray:
    """Compute MS as the published script does, over every pair of samples, of activations scaled to [0, 1]."""
    low, high = acts.amin(0), acts.amax(0)
    scaled = (acts - low) / torch.where(high > low, high - low, 1.0)
    top, bottom = torch.zeros(acts.shape[1]).double(), torch.zeros(acts.shape[1]).double()
    for i in range(len(scaled)):
        weight = scaled[i] * scaled[i + 1 :]
        top += (weight * (judged[i + 1 :] @ judged[i])[:, None]).sum(0)
        bottom += weight.sum(0)
    return (top / bottom).numpy()


def gap(b: Bench, opened: OpenedRun, pairs: int) -> None:
    """Print the modality gap of the final embeddings beside that of published embeddings."""
    cache = Cache.open(opened.folder.activations)
    near = first(cache, by_modality([Site(side, EMBEDDING) for side in opened.asked.sides]), None, pairs)
    found = modality_gap(near.image, near.text)
    b.table("Modality gap: distance between the means of both modalities", ["model and pairs", "distance", "source"])
    b.row(f"{opened.asked.model}, {len(near.ids)} pairs", found["centroid"], "this run")
    for name, (distance, source) in GAP.items():
        b.row(name, distance, source)


def fidelity(b: Bench, opened: OpenedRun, pairs: int) -> None:
    """Print the tasks of the model with the dictionary spliced in."""
    summary = {n: v for n, v in opened_summary(opened).items() if n.startswith(("explained_variance", "l0"))}
    b.table("Fidelity of the dictionary", {"figure": "", "value": ".3f"})
    for name, value in summary.items():
        b.row(name, value)
    for title, rows in fidelity_tables(opened, None, pairs).items():
        if title.startswith("Downstream"):
            of_rows(b, f"Fidelity: {title}", rows)


def names(b: Bench, opened: OpenedRun) -> None:
    """Print the tests of names on held-out samples, with shuffled names beside."""
    from cliplens.files import read_json

    tables = read_json(opened.folder.findings)["tables"]
    rows = tables.get("Tests of names on held-out samples")
    if not rows:
        raise ValueError(
            "Expected names with enough held-out samples to test them, but found none. Fix: use more pairs."
        )
    of_rows(b, "Names, tested on held-out samples", rows)


def bias(b: Bench, opened: OpenedRun, data: Sequence[str], images: int, draws: int) -> None:
    """Print bias before and after published methods, beside SEM's own rows."""
    for given in data:
        study = bias_of_run(opened, BiasOptions(data=given, images=images, draws=draws))
        for title, rows in list(study.tables.items())[:2]:
            of_rows(b, f"Bias, {given.partition(':')[0]}: {title}", rows)
    if not data:
        b.table("Bias: not made", {"why": ""})
        b.row("no labelled pictures: add --bias waterbirds:FOLDER fairface:FOLDER")
    heads = ["method", "MaxSkew@500, FairFace", "worst group, Waterbirds", "source"]
    b.table("Bias as published", heads)
    for name, (skew, worst) in SEM_ROWS.items():
        b.row(name, skew, worst, SEM)


def opened_summary(opened: OpenedRun) -> dict[str, Any]:
    """Return the headline figures of a run."""
    from cliplens.files import read_json

    return dict(read_json(opened.folder.summary))


def settings_of(a: Any) -> Settings:
    """Return the settings of the run."""
    given = {name: getattr(a, name) for name in ("pretrained", "image_root", "judge") if getattr(a, name)}
    sizes = {name: getattr(a, name) for name in ("d_sae", "k", "samples") if getattr(a, name)}
    return Settings(
        model=a.model, pairs=a.pairs, hook=a.hook, device=a.device, batch_size=a.batch_size, max_bad=a.max_bad,
        **given, **sizes,
    )  # fmt: skip


if __name__ == "__main__":
    options = {
        "model": "ViT-B-16",
        "pretrained": (None, "a weights file, or a tag (which downloads)"),
        "pairs": (None, "COCO's captions_*.json, CC3M's TSV, or another source of pairs"),
        "image_root": (None, "folder of the images, where it is not beside the captions"),
        "out": "with-weights",
        "hook": "hook_embedding",
        "judge": (None, "an independent judge, as in cliplens run --judge"),
        "d_sae": (0, "number of latents; 0: four times the width"),
        "k": (0, "active latents; 0: by width"),
        "samples": (0, "rows to train on; 0: by the number of pairs"),
        "batch_size": 1024,
        "max_bad": (0.01, "largest share of unreadable pairs"),
        "tasks": (512, "pairs for retrieval and fidelity"),
        "ms_images": (2048, "images for MS and pairs for the gap"),
        "controls": (20, "random sets of latents per class"),
        "bias": ([], "labelled pictures: waterbirds:FOLDER celeba:FOLDER fairface:FOLDER utkface:FOLDER"),
        "bias_images": 2000,
        "bias_draws": 200,
    }
    with bench(__file__, __doc__, **options) as b:
        a = b.args
        if not a.pairs:
            raise SystemExit("Expected --pairs, but found none. Fix: pass COCO's captions_val2017.json or CC3M's TSV.")
        out = Path(a.out)
        opened = OpenedRun(run(settings_of(a), out / "run", resume=True, until="name"))
        b.note("pairs", len(opened.pairs))
        b.note("latents", opened.dictionary.d_sae)
        parts: dict[str, Callable[[], None]] = {
            "Modality classes": partial(classes, b, opened),
            "Ablation of classes": partial(ablation, b, opened, a.tasks, a.controls),
            "MS": partial(monosemanticity, b, opened, a.ms_images),
            "Fidelity": partial(fidelity, b, opened, a.tasks),
            "Names": partial(names, b, opened),
            "Bias": partial(bias, b, opened, a.bias, a.bias_images, a.bias_draws),
            "Modality gap": partial(gap, b, opened, a.ms_images),
        }
        for title, make in parts.items():
            part(b, title, make)
        print(f"Page: {save_tables(out / 'with_weights.html', b, f'{a.model} on {Path(a.pairs).name}')}")
