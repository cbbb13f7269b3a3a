"""MODTRUTH: which modality scores recover a known truth, and are their intervals correct?

    python benchmarks/modality_ground_truth.py [--seeds 5] [--steps 400] [--resume RUNS.jsonl] [--figure FILE.svg]
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
   classes. With --resume, the figures of each dictionary are kept in a file, so that an interrupted run can continue.
3. Calibration: coverage of the 95 % intervals by number of firings, and false discoveries at 4,096 latents.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from _bench import Bench, bench, mean
from cliplens.hooked import HookedCLIP
from cliplens.records import Batch, GroundTruth, PairedActs, PairedCodes, SparseCodes
from cliplens.statistics import auroc, benjamini_hochberg, percentile_interval
from cliplens.tally import Sums, tally
from cliplens_plugins.fidelity import FidelityMetric
from cliplens_plugins.modality import VARIANTS, GroundTruthMetric, classify, classify_fixed, cofiring, mds
from cliplens_plugins.modality.bootstrap import add_replicates, replicates
from cliplens_plugins.modality.interval import interval
from cliplens_plugins.modality.null import swap_p
from cliplens_plugins.modality.sums import add_pairs

Codes = tuple[np.ndarray, np.ndarray, np.ndarray]
SCORES = (*VARIANTS, "cofiring")
SINGLE = ("ImgD", "TextD", "CrossD")
TRAIN, SCORED = 8192, 4096
FITTED = ("explained_variance", "l0")
LABEL_CUTS = (0.1, 0.2, 0.35, 0.5)
"""Label cuts: minimum correlation of a latent with a factor value to be labelled; the metric uses .35."""
CLASS_CUTS = (0.05, 0.1, 0.2, 0.3)
"""Class cuts: a latent is TextD below the cut and ImgD above one minus the cut; the metric uses .2 and .8."""
CLASSES = ("batchtopk", "topk", "matryoshka_batchtopk", "group_sparse", "group_sparse:group_coefficient=0.2")
CLASSES += ("masked_group_sparse", "iso_energy", "iso_energy:align_coefficient=0.002", "two_decoders", "ncl")
"""Alignment-aware classes at their published weights, and two of them at larger weights (4 and 10 times)."""


# --- 1. planted codes


def planted(seed: int, confound: str, n_pairs: int = 4000, per_class: int = 60) -> Codes:
    """Return image codes, caption codes and true classes, with heavy-tailed firing rates and one confound."""
    g = np.random.default_rng(seed)
    k = 3 * per_class
    classes = np.repeat(np.array(["ImgD", "TextD", "CrossD"], dtype="<U6"), per_class)
    rate = np.clip(0.01 * (1 + g.pareto(1.5, k)), None, 0.3)
    draw = g.random((n_pairs, k))
    if confound == "correlated factors":
        common = g.random((n_pairs, k // 3))
        draw = np.where(g.random((n_pairs, k)) < 0.5, np.tile(common, 3), draw)
    concept = draw < rate
    kept = [g.random((n_pairs, k)) < 0.8 for _ in range(2)]
    leak = [g.random((n_pairs, k)) < 0.05 for _ in range(2)]
    on_image = concept & np.select([classes == "ImgD", classes == "TextD"], [np.True_, leak[0]], kept[0])
    on_text = concept & np.select([classes == "TextD", classes == "ImgD"], [np.True_, leak[1]], kept[1])
    size = [np.exp(g.normal(0, 1, k))] * 2
    if confound == "unequal norms":
        size[1] = size[1] * np.exp(g.normal(0, 1, k))
    if confound == "modality gap":
        size[1] = size[1] * 0.25
    image, text = (on * s * g.gamma(2.0, 0.5, (n_pairs, k)) for on, s in zip((on_image, on_text), size, strict=True))
    if confound == "noise":
        image, text = (c + (g.random(c.shape) < 0.01) * 0.1 * g.random(c.shape) for c in (image, text))
    if confound == "split":
        half = (classes == "CrossD") & (g.random(k) < 0.5)
        image[:, half & (np.arange(k) % 2 == 0)] = 0
        text[:, half & (np.arange(k) % 2 == 1)] = 0
    return image, text, classes


CONFOUNDS = ("heavy tails only", "unequal norms", "modality gap", "correlated factors", "noise", "split")


def planted_rows(seeds: int) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return accuracies and AUROC by confound and score, one value per seed."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for confound in tqdm(CONFOUNDS, delay=2, desc="planted"):
        for seed in range(seeds):
            image, text, classes = planted(seed, confound)
            shared = classes == "CrossD"
            for name in SCORES:
                score = cofiring(image, text) if name == "cofiring" else mds(image, text, variant=name)
                known = ~np.isnan(score)
                even = score if name == "cofiring" else -np.abs(score - 0.5)
                row = found[confound, name]
                row["auroc"].append(auroc(even[known & shared], even[known & ~shared]))
                if name != "cofiring":
                    row["accuracy_fixed"].append(float((classify_fixed(score) == classes).mean()))
                    row["accuracy_paper"].append(float((classify(score) == classes).mean()))
    return found


# --- 2. the embedded world


@lru_cache(maxsize=2)
def embeddings(model: str, n: int, hook: str = "hook_embedding") -> PairedActs:
    """Return activations of world pairs at a hook of both towers, one position each."""
    import cliplens

    return read(cliplens.load(model), n, hook)


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


def world_figures(acts: PairedActs, training_class: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one dictionary and compare its scores with the truth."""
    from cliplens.sae import dictionary_config, needs_pairs, train
    from cliplens.store import Provider
    from cliplens.world import ground_truth

    architecture, options = parsed(training_class)
    config = dictionary_config(architecture, acts.image.shape[1], 256, k=8, **options)
    trained_on = PairedActs(acts.ids[:TRAIN], acts.image[:TRAIN], acts.text[:TRAIN])
    provider = Provider.from_acts(trained_on, batch_size=1024, seed=seed, paired=needs_pairs(architecture))
    dictionary = train(config, provider, samples=1024 * steps, batch_size=1024, lr=1e-3, seed=seed)
    truth = ground_truth(len(acts.ids))

    def batches() -> Iterator[Batch]:
        for a in range(TRAIN, len(acts.ids), 1024):
            part = slice(a, a + 1024)
            yield dictionary.batch(PairedActs(acts.ids[part], acts.image[part], acts.text[part]), truth=truth)

    metric = GroundTruthMetric()
    found = tally(batches(), [metric, FidelityMetric()], decoder=dictionary.decoder)
    if found.failed:
        raise RuntimeError(found.failed)
    figures = {**found.figures["ground_truth"], **{name: found.figures[name] for name in FITTED}}
    return {**figures, **by_label(metric), "cuts": by_cut(metric, truth)}


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
    """A file of JSON lines with the figures of the dictionaries trained so far."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._held = {tuple(entry["of"]): entry["figures"] for entry in map(json.loads, lines)}

    def get(self, of: tuple[str | int, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the stored figures, or compute and store them."""
        if of not in self._held:
            self._held[of] = make()
            if self._path:
                with self._path.open("a") as file:
                    file.write(json.dumps({"of": of, "figures": self._held[of]}) + "\n")
        return self._held[of]


# --- 3. calibration


def coverage(n: int, trials: int, seed: int) -> dict[str, float]:
    """Return the coverage of the interval, and of a simple percentile interval, for latents with n firings."""
    g = np.random.default_rng(seed)
    true = np.tile([0.03, 0.1, 0.3, 0.5, 0.8, 0.97], 20)
    hits: dict[str, list[float]] = {"ours": [], "percentile": []}
    for trial in range(trials):
        pure = g.random((n, len(true))) < 0.5
        ratio = np.where(pure, g.random((n, len(true))) < true, g.beta(8 * true, 8 * (1 - true), (n, len(true))))
        size = g.gamma(2, size=ratio.shape)
        sides = [SparseCodes.from_dense(torch.tensor(s)) for s in (ratio * size, (1 - ratio) * size)]
        codes = PairedCodes(tuple(f"{seed}-{trial}-{i}" for i in range(n)), *sides)
        sums, drawn = Sums(), Sums()
        add_pairs(sums, codes)
        add_replicates(drawn, codes, 200)
        ours, bare = interval(sums, drawn), percentile_interval(replicates(drawn).numpy())
        hits["ours"].append(float(((ours.low <= true) & (true <= ours.high)).mean()))
        hits["percentile"].append(float(((bare[0] <= true) & (true <= bare[1])).mean()))
    return {name: float(np.mean(values)) for name, values in hits.items()}


def false_discoveries(seed: int, repeats: int = 40) -> tuple[float, float]:
    """Return two false discovery rates at 4,096 latents and q <= .05.

    First, no latent has an effect: the share of repeats with at least one discovery. Second, 1,000 latents have an
    effect: the share of false discoveries among all discoveries.
    """
    g = np.random.default_rng(seed)
    none, among = [], []
    for _ in range(repeats):
        n = np.minimum(2 + g.pareto(0.8, 4096) * 5, 1000).astype(int)
        latent, real = np.repeat(np.arange(4096), n), np.arange(4096) < 1000
        for share, out in ((np.full(4096, 0.5), none), (np.where(real, 0.9, 0.5), among)):
            d = np.where(g.random(len(latent)) < share[latent], 0.5, -0.5) * g.choice([1.0, 0.6], len(latent))
            d1, d2 = (torch.tensor(np.bincount(latent, w, minlength=4096)) for w in (d, d * d))
            found = benjamini_hochberg(swap_p(d1, d2)) <= 0.05
            out.append(found.any() if out is none else (found & ~real).sum() / max(1, found.sum()))
    return float(np.mean(none)), float(np.mean(among))


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
        resume=(None, "keep each dictionary's figures in this file, and use those that are there"),
        figure=(None, "SVG to write"),
    ) as b:
        seeds = range(b.args.seeds)
        codes = planted_rows(b.args.seeds)
        score_table(b, "Planted codes", codes)
        runs = world_runs(b)
        first = {m: found for (m, c), found in runs.items() if c == b.args.classes[0]}
        scores = scores_of({f"{m}, {b.args.classes[0]}": found for m, found in first.items()})
        score_table(b, "Embedded world, latents with a label", scores)
        label_table(b, first)
        cut_table(b, first)
        class_table(b, runs)

        heads = ("coverage of the 95 % interval", "of bare percentiles")
        b.table("Calibration of the interval", {"firings": "", **dict.fromkeys(heads, ".3f")})
        for n in (5, 10, 20, 50, 100, 200, 400, 800):
            held = [coverage(n, 4, seed) for seed in seeds]
            b.row(n, *(mean([h[name] for h in held]) for name in ("ours", "percentile")))
        rates = [false_discoveries(seed) for seed in seeds]
        b.table("False discoveries at 4,096 latents, q <= .05", {"rate": "", "value": ".3f"})
        b.row("share of repeats with a discovery, no real effects", mean([r[0] for r in rates]))
        b.row("share of false discoveries, 1,000 real effects", mean([r[1] for r in rates]))
        if b.args.figure:
            panels = {"planted codes": codes, "embedded world": scores} if scores else {"planted codes": codes}
            figure(Path(b.args.figure), panels)


def world_runs(b: Bench) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the figures of one dictionary per seed, for each model and training class."""
    sources: dict[str, Callable[[], PairedActs]] = {
        "default": lambda: embeddings("world", TRAIN + SCORED),
        "plain twin": lambda: embeddings("world-plain", TRAIN + SCORED),
        "split-prone": lambda: turned(embeddings("world", TRAIN + SCORED)),
    }
    kept = Kept(Path(b.args.resume) if b.args.resume else None)
    return {
        (model, training_class): [
            kept.get(
                (model, training_class, seed, b.args.steps),
                lambda m=model, c=training_class, s=seed: world_figures(sources[m](), c, s, b.args.steps),
            )
            for seed in tqdm(range(b.args.seeds), delay=2, desc=f"{model}, {training_class}")
        ]
        for model in b.args.models
        for training_class in b.args.classes
    }


def as_number(share: str) -> float:
    """Convert a share such as '3/4' to a number; nan for a share of nothing."""
    covered, values = share.split("/")
    return int(covered) / int(values) if int(values) else float("nan")


if __name__ == "__main__":
    main()
