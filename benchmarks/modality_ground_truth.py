"""MODTRUTH: which modality scores recover a known truth, and are their intervals correct?

    python benchmarks/modality_ground_truth.py [--seeds 5] [--steps 400] [--resume RUNS.jsonl] [--figure FILE.svg]
        [--parts planted world controls calibration]
        [--classes batchtopk topk group_sparse:group_coefficient=0.2 ...]

Three parts, each over seeds with 95 % t-intervals. The seeds of part 2 are dictionaries of one model of one world, so
the intervals cover the variation of dictionaries, not that of worlds or models.
1. Planted codes: latents are made image-only, text-only or shared, with heavy-tailed firing and one confound each.
2. The embedded world: dictionaries are trained on the final embeddings of the default model, of its plain InfoNCE twin
   (the negative control without single-modality factors), and of a split-prone variant of the default model, whose
   captions are rotated by 50 degrees and shifted, so that shared concepts split into two latents.
   Labels of latents come from one half of the scored pairs, scores from the other. Living latents without a label are
   counted separately, and the accuracy is given for several label cuts and class cuts. A training class is an
   architecture, or an architecture with one field set; the first has a table of all scores, and one table has all
   classes. Controls of the first class: its labels shuffled among the labelled latents, an untrained dictionary, a
   decoder frozen at random, and a model with shuffled weights.
3. Calibration: coverage of the 95 % intervals by number of firings, and false discoveries at 4,096 latents.

With --resume, the figures of each dictionary and seed are kept in a file, so that an interrupted run can continue.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from _bench import Bench, bench, mean
from _modality.calibration import coverage, false_discoveries
from _modality.controls import CONTROLS, control_table, shuffled_labels
from _modality.planted import SCORES, planted_rows
from cliplens.hooked import HookedCLIP
from cliplens.records import Batch, GroundTruth, PairedActs
from cliplens.run.trained_controls import shuffled_weights
from cliplens.sae import Dictionary
from cliplens.tally import tally
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import GroundTruthMetric, classify_fixed

SINGLE = ("ImgD", "TextD", "CrossD")
TRAIN, SCORED = 8192, 4096
K = 8
PARTS = ("planted", "world", "controls", "calibration")
FITTED = ("explained_variance", "l0")
LABEL_CUTS = (0.1, 0.2, 0.35, 0.5)
"""Label cuts: minimum correlation of a latent with a factor value to be labelled; the metric uses .35."""
CLASS_CUTS = (0.05, 0.1, 0.2, 0.3)
"""Class cuts: a latent is TextD below the cut and ImgD above one minus the cut; the metric uses .2 and .8."""
CLASSES = ("batchtopk", "topk", "matryoshka_batchtopk", "group_sparse", "group_sparse:group_coefficient=0.2")
CLASSES += ("masked_group_sparse", "iso_energy", "iso_energy:align_coefficient=0.002", "two_decoders", "ncl")
"""Alignment-aware classes at their published weights, and two of them at larger weights (4 and 10 times)."""


# --- the embedded world


@lru_cache(maxsize=2)
def embeddings(model: str, n: int, hook: str = "hook_embedding", untrained: bool = False) -> PairedActs:
    """Return activations of world pairs at a hook of both towers, one position each.

    Args:
        model: an embedded model.
        n: number of pairs.
        hook: where to read.
        untrained: shuffle the entries of every weight tensor first.
    """
    import cliplens

    clip = cliplens.load(model)
    with shuffled_weights(clip.model) if untrained else nullcontext():
        return read(clip, n, hook)


def read(clip: HookedCLIP, n: int, hook: str = "hook_embedding") -> PairedActs:
    """Return activations of world pairs by any model that can encode the captions of the world."""
    from cliplens.sites import sites_of
    from cliplens.stream import stream
    from cliplens.world import world_pairs

    parts = list(stream(clip, world_pairs(n), sites_of(hook), forward_batch=256))
    ids = tuple(i for part in parts for i in part.ids)
    sides = {m: torch.cat([part.of(m).float() for part in parts]) for m in ("image", "text")}
    return PairedActs(ids, **sides)


def turned(acts: PairedActs, degrees: float = 50.0, gap: float = 0.5) -> PairedActs:
    """Rotate and shift the captions, so that a direction shared with images becomes two directions."""
    g = torch.Generator().manual_seed(50)
    d = acts.image.shape[1]
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=g))
    skew = torch.matrix_exp(math.radians(degrees) * _half_turns(turn))
    away = torch.nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    size = acts.text.norm(dim=1).mean()
    return PairedActs(acts.ids, acts.image + gap * size * away, acts.text @ skew - gap * size * away)


def _half_turns(basis: torch.Tensor) -> torch.Tensor:
    """Return the generator of a rotation by one radian in d/2 random planes at once."""
    d = len(basis)
    planes = torch.zeros(d, d)
    even = torch.arange(0, d - 1, 2)
    planes[even, even + 1], planes[even + 1, even] = 1.0, -1.0
    return basis @ planes @ basis.T


def world_figures(acts: PairedActs, training_class: str, seed: int, steps: int, control: str = "") -> dict[str, Any]:
    """Train one dictionary, or make one as a control, and compare its scores with the truth."""
    from cliplens.sae import untrained_twin
    from cliplens.world import ground_truth

    truth, scored = ground_truth(len(acts.ids)), slice(TRAIN, None)
    if control == "untrained dictionary":
        dictionary = untrained_twin(trained(acts, training_class, seed, steps=1), K, seed=seed)
    else:
        dictionary = trained(acts, training_class, seed, steps, frozen_decoder=control == "frozen decoder")
    metric = GroundTruthMetric()
    found = tally(batches(dictionary, acts, scored, truth), [metric, FidelityMetric()], decoder=dictionary.decoder)
    if found.failed:
        raise RuntimeError(found.failed)
    figures = {**found.figures["ground_truth"], **{name: found.figures[name] for name in FITTED}}
    shuffled = shuffled_labels(metric.labels().classes(truth.sharing), metric.scores(), seed)
    return {**figures, **by_label(metric), "cuts": by_cut(metric, truth), "shuffled": shuffled}


def trained(acts: PairedActs, training_class: str, seed: int, steps: int, **options: Any) -> Dictionary:
    """Train a dictionary on the first pairs."""
    from cliplens.sae import dictionary_config, needs_pairs, train
    from cliplens.store import Provider

    architecture, fields = parsed(training_class)
    config = dictionary_config(architecture, acts.image.shape[1], 256, k=K, **fields)
    rows = PairedActs(acts.ids[:TRAIN], acts.image[:TRAIN], acts.text[:TRAIN])
    provider = Provider.from_acts(rows, batch_size=1024, seed=seed, paired=needs_pairs(architecture))
    return train(config, provider, samples=1024 * steps, batch_size=1024, lr=1e-3, seed=seed, **options)


def batches(dictionary: Dictionary, acts: PairedActs, of: slice, truth: GroundTruth) -> Iterator[Batch]:
    """Yield the codes of a dictionary for some pairs."""
    for a in range(*of.indices(len(acts.ids)))[::1024]:
        part = slice(a, a + 1024)
        yield dictionary.batch(PairedActs(acts.ids[part], acts.image[part], acts.text[part]), truth=truth)


def by_label(metric: GroundTruthMetric) -> dict[str, dict[str, int]]:
    """Count the classes by MDS and fixed cuts among living latents, with and without a label."""
    classes, labelled = classify_fixed(metric.scores()["pairs"]), metric.labels().labelled
    groups = {"labelled_classes": labelled, "unlabelled_classes": ~labelled}
    return {group: {name: int((classes[of] == name).sum()) for name in SINGLE} for group, of in groups.items()}


def by_cut(metric: GroundTruthMetric, truth: GroundTruth) -> list[dict[str, float]]:
    """Return one row per label cut and class cut: the number of labelled latents, and the accuracy of two scores.

    The scores are MDS and the energy ratio. A latent has a label if its best correlation reaches the label cut.
    """
    rows = []
    for least in LABEL_CUTS:
        classes = metric.labels(least).classes(truth.sharing)
        for low in CLASS_CUTS:
            row: dict[str, float] = {"label cut": least, "class cut": low, "labelled": int((classes != "").sum())}
            for name in ("pairs", "energy"):
                score = metric.scores()[name]
                known = (classes != "") & ~np.isnan(score)
                right = classify_fixed(score, low, 1 - low)[known] == classes[known]
                row[name] = float(right.mean()) if known.any() else float("nan")
            rows.append(row)
    return rows


def parsed(training_class: str) -> tuple[str, dict[str, float]]:
    """Parse `architecture` or `architecture:field=number`."""
    architecture, _, setting = training_class.partition(":")
    field, _, value = setting.partition("=")
    return architecture, {field: float(value)} if setting else {}


class Kept:
    """A file of JSON lines with the figures measured so far."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._held = {tuple(entry["of"]): entry["figures"] for entry in map(json.loads, lines)}

    def get(self, of: tuple[str | int, ...], make: Callable[[], Any]) -> Any:
        """Return the stored figures, or compute and store them."""
        if of not in self._held:
            self._held[of] = make()
            if self._path:
                with self._path.open("a") as file:
                    file.write(json.dumps({"of": of, "figures": self._held[of]}) + "\n")
        return self._held[of]


# --- tables


def scores_of(runs: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return accuracies and AUROC by run and score, one value per seed."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for what, found in runs.items():
        for figures in found:
            for name, row in figures["recovery"].items():
                for key, value in row.items():
                    scores[what, name][key].append(value)
    return scores


def class_table(b: Bench, runs: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Print one row per model and training class."""
    columns: dict[str, Callable[[dict[str, Any]], float]] = {
        "explained variance": lambda f: f["explained_variance"],
        "L0": lambda f: f["l0"],
        "labelled": lambda f: float(f["labelled"]),
        "unlabelled": lambda f: float(f["unlabelled"]),
        "split fraction": lambda f: f["split_fraction"],
        "covered: shared": lambda f: as_number(f["coverage"]["shared"]),
        "image": lambda f: as_number(f["coverage"]["image"]),
        "text": lambda f: as_number(f["coverage"]["text"]),
        "accuracy, MDS": lambda f: f["recovery"]["pairs"]["accuracy_fixed"],
        "AUROC, MDS": lambda f: f["recovery"]["pairs"]["auroc"],
        "AUROC, energy": lambda f: f["recovery"]["energy"]["auroc"],
        "AUROC, co-firing": lambda f: f["recovery"]["cofiring"]["auroc"],
    }
    b.table("Training classes", {"model": "", "training class": "", **dict.fromkeys(columns, ".3f")})
    for (model, training_class), found in runs.items():
        cells = [mean([column(figures) for figures in found]) for column in columns.values()]
        b.row(model, training_class.replace(":", ", "), *cells)


def label_table(b: Bench, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print the share of each class among living latents with a label, and among those without."""
    b.table(
        "Classes by MDS and fixed cuts, of living latents with and without a label",
        {"model": "", "latents": "", "number": ".0f", **dict.fromkeys(SINGLE, ".3f")},
    )
    for model, found in runs.items():
        for group in ("labelled", "unlabelled"):
            counts = [figures[f"{group}_classes"] for figures in found]
            sizes = [sum(c.values()) for c in counts]
            shares = [
                mean([c[name] / n if n else math.nan for c, n in zip(counts, sizes, strict=True)]) for name in SINGLE
            ]
            b.row(model, group, mean(sizes), *shares)


def cut_table(b: Bench, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print the accuracy by label cut and class cuts."""
    b.table(
        "Accuracy by label cut and class cuts",
        {"model": "", "label cut": ".2f", "class cuts": "", "labelled": ".0f", "MDS": ".3f", "energy ratio": ".3f"},
    )
    for model, found in runs.items():
        for rows in zip(*(figures["cuts"] for figures in found), strict=True):
            low = rows[0]["class cut"]
            cells = [mean([float(row[name]) for row in rows]) for name in ("labelled", "pairs", "energy")]
            b.row(model, rows[0]["label cut"], f"{low:g} and {1 - low:g}", *cells)


def score_table(b: Bench, title: str, found: dict[tuple[str, str], dict[str, list[float]]]) -> None:
    heads = ("accuracy, fixed cuts", "accuracy, the paper's cuts", "AUROC, shared against single")
    b.table(title, {"data": "", "score": "", **dict.fromkeys(heads, ".3f")})
    for (what, name), row in found.items():
        b.row(what, name, *(mean(row[key]) for key in ("accuracy_fixed", "accuracy_paper", "auroc")))


def figure(path: Path, panels: dict[str, dict[tuple[str, str], dict[str, list[float]]]]) -> None:
    """Draw the AUROC of every score with its interval, by confound and by model."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "modtruth"
    drawn, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 5), sharex=True, squeeze=False)
    for axis, (title, found) in zip(axes[0], panels.items(), strict=True):
        groups = list(dict.fromkeys(what for what, _ in found))
        for offset, name in enumerate(SCORES):
            rows = [(i, found[w, name]["auroc"]) for i, w in enumerate(groups)]
            at = [i + 0.11 * (offset - 3) for i, _ in rows]
            means = [np.nanmean(v) if np.isfinite(v).any() else np.nan for _, v in rows]
            spread = [np.nanstd(v) if np.isfinite(v).any() else np.nan for _, v in rows]
            axis.errorbar(means, at, xerr=spread, fmt="o", ms=4, lw=1, label=name)
        axis.set_yticks(range(len(groups)), groups)
        axis.invert_yaxis()
        axis.set_xlabel("AUROC, shared against single-modality latents")
        axis.set_title(title)
        axis.axvline(0.5, color="0.8", lw=1)
    axes[0][0].legend(fontsize=7)
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, metadata={"Date": None})


def main() -> None:
    with bench(
        __file__,
        __doc__,
        seeds=5,
        classes=(list(CLASSES), "training classes"),
        models=["default", "plain twin", "split-prone"],
        steps=400,
        parts=(list(PARTS), "parts to run; the others are left out of the result"),
        resume=(None, "keep each dictionary's figures in this file, and use those that are there"),
        figure=(None, "SVG to write"),
    ) as b:
        parts = b.args.parts
        kept = Kept(Path(b.args.resume) if b.args.resume else None)
        codes = planted_rows(b.args.seeds, kept.get) if "planted" in parts else {}
        if codes:
            score_table(b, "Planted codes", codes)
        scores = world_tables(b, kept) if "world" in parts else {}
        if "controls" in parts:
            own = {model: seeds_of(b, kept, model, b.args.classes[0]) for model in b.args.models}
            control_table(b, own, control_runs(b, kept))
        if "calibration" in parts:
            calibration_tables(b, kept)
        if b.args.figure:
            panels = {"planted codes": codes, "embedded world": scores}
            figure(Path(b.args.figure), {title: found for title, found in panels.items() if found})


def world_tables(b: Bench, kept: "Kept") -> dict[tuple[str, str], dict[str, list[float]]]:
    """Print the tables of the embedded world; return accuracies and AUROC by model and score."""
    runs = world_runs(b, kept)
    first = {m: found for (m, c), found in runs.items() if c == b.args.classes[0]}
    scores = scores_of({f"{m}, {b.args.classes[0]}": found for m, found in first.items()})
    score_table(b, "Embedded world, latents with a label", scores)
    label_table(b, first)
    cut_table(b, first)
    class_table(b, runs)
    return scores


def calibration_tables(b: Bench, kept: "Kept") -> None:
    """Print coverage by number of firings, and false discoveries."""
    seeds = range(b.args.seeds)
    heads = ("coverage of the 95 % interval", "of bare percentiles")
    b.table("Calibration of the interval", {"firings": "", **dict.fromkeys(heads, ".3f")})
    for n in (5, 10, 20, 50, 100, 200, 400, 800):
        held = [kept.get(("coverage", n, seed), partial(coverage, n, 4, seed)) for seed in seeds]
        b.row(n, *(mean([h[name] for h in held]) for name in ("ours", "percentile")))
    rates = [kept.get(("false discoveries", seed), partial(false_discoveries, seed)) for seed in seeds]
    b.table("False discoveries at 4,096 latents, q <= .05", {"rate": "", "value": ".3f"})
    b.row("share of repeats with a discovery, no real effects", mean([r[0] for r in rates]))
    b.row("share of false discoveries, 1,000 real effects", mean([r[1] for r in rates]))


def world_runs(b: Bench, kept: "Kept") -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the figures of one dictionary per seed, for each model and training class."""
    return {
        (model, training_class): seeds_of(b, kept, model, training_class)
        for model in b.args.models
        for training_class in b.args.classes
    }


def control_runs(b: Bench, kept: "Kept") -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the figures of one dictionary per seed, for each model and control of the first training class."""
    return {
        (model, control): seeds_of(b, kept, model, b.args.classes[0], control)
        for model in b.args.models
        for control in CONTROLS
    }


def seeds_of(b: Bench, kept: "Kept", model: str, training_class: str, control: str = "") -> list[dict[str, Any]]:
    """Return the figures of one dictionary per seed."""

    def make(seed: int) -> dict[str, Any]:
        name = "world-plain" if model == "plain twin" else "world"
        acts = embeddings(name, TRAIN + SCORED, untrained=control == "untrained model")
        acts = turned(acts) if model == "split-prone" else acts
        return world_figures(acts, training_class, seed, b.args.steps, control)

    seeds = tqdm(range(b.args.seeds), delay=2, desc=f"{model}, {control or training_class}")
    key = (model, training_class, *([control] if control else []))
    return [kept.get((*key, seed, b.args.steps), lambda s=seed: make(s)) for seed in seeds]  # type: ignore[misc]


def as_number(share: str) -> float:
    """Convert a share such as '3/4' to a number; nan for a share of nothing."""
    covered, values = share.split("/")
    return int(covered) / int(values) if int(values) else float("nan")


if __name__ == "__main__":
    main()
