"""Print the tables and draw the figure of the steering benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _bench import Bench, Estimate
from _steering.data import ALPHAS, LIMIT, VISIBLE
from cliplens.world import FACTORS
from cliplens_plugins.steering import (
    share_of,
)
from cliplens_plugins.steering.effects import Effect


def edit_tables(b: Bench, rows: Sequence[dict[str, Any]]) -> None:
    """Print, per case and method, the effect at the chosen dose (one per seed) and the most success at any dose."""
    for modality, reader in sorted({(r["modality"], r["reader"]) for r in rows}):
        b.table(
            f"{modality} embeddings, read by {reader}",
            {
                "attribute": "",
                "method": "",
                "success at the chosen dose": ".2f",
                "doses": "",
                "worst side effect": ".2f",
            }
            | {"most success": ".2f", "at dose": "g", "worst side effect there": ".2f", "of": "", "slope": "+.2f"},
        )
        for attribute in VISIBLE:
            mine = [r for r in rows if (r["modality"], r["reader"], r["attribute"]) == (modality, reader, attribute)]
            for method in dict.fromkeys(r["method"] for r in mine):
                b.row(attribute, method, *cells([r for r in mine if r["method"] == method]))
    b.table(
        "Attributes",
        {"modality": "", "reader": "", "attribute": "", "values with a latent": "", "latents that say something": ""}
        | {"right at dose 0": ".2f"},
    )
    for modality, reader, attribute in dict.fromkeys((r["modality"], r["reader"], r["attribute"]) for r in rows):
        mine = [r for r in rows if (r["modality"], r["reader"], r["attribute"]) == (modality, reader, attribute)]
        values = f"{mine[0]['values']} of {len(FACTORS[attribute].values)}"
        right = np.mean([r["right at dose 0"] for r in mine])
        b.row(modality, reader, attribute, values, mine[0]["latents"], right)


def cells(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the cells of one case and method."""
    doses = sorted({r["dose"] for r in rows})
    pooled = [pooled_effect([r for r in rows if r["dose"] == d]) for d in doses]
    most = max(pooled, key=lambda e: e.success.share)
    at_chosen = [r for r in rows if r["dose"] == r["chosen"]]
    kept, at = pooled_effect(at_chosen), "/".join(f"{r['chosen']:g}" for r in at_chosen)
    which = max(most.changed, key=lambda a: most.changed[a].share)
    slope = None
    if len(doses) > 1:
        slope = Estimate(*(float(np.mean([r[k] for r in rows])) for k in ("slope", "slope_low", "slope_high")))
    return [_share(kept), at, kept.worst, _share(most), most.dose, most.worst, which, slope]


def _share(found: Effect) -> Estimate:
    return Estimate(found.success.share, found.success.low, found.success.high)


def pooled_effect(rows: Sequence[dict[str, Any]]) -> Effect:
    """Return the effect of one dose with the samples of all seeds pooled."""
    n = sum(r["n"] for r in rows)
    hits = round(sum(r["success"] * r["n"] for r in rows))
    changed = {}
    for attribute in rows[0]["changed"]:
        moved = round(sum(r["changed"][attribute] * r["n"] for r in rows))
        changed[attribute] = share_of(np.arange(n) < moved)
    return Effect(rows[0]["dose"], share_of(np.arange(n) < hits), changed)


def mixing_table(b: Bench, mixed: Sequence[dict[str, Any]]) -> None:
    """Print, per class of latents, how often an attribute changed and how often it equals the reference."""
    for reader in dict.fromkeys(m["reader"] for m in mixed):
        mine = [m for m in mixed if m["reader"] == reader]
        attributes = list(dict.fromkeys(m["attribute"] for m in mine))
        heads = {f"{a}: {what}": ".2f" for a in attributes for what in ("changed", "as the reference")}
        b.table(
            f"Captions with latents of a reference picture, read by {reader}",
            {"class": "", "latents": "", "alpha": "g", **heads},
        )
        for kind in dict.fromkeys(m["class"] for m in mine):
            size = next(m["latents"] for m in mine if m["class"] == kind)
            for alpha in ALPHAS:
                found = [m for m in mine if (m["class"], m["alpha"]) == (kind, alpha)]
                means = [
                    float(np.mean([m[k] for m in found if m["attribute"] == a]))
                    for a in attributes
                    for k in ("changed", "taken")
                ]
                b.row(kind, size, alpha, *means)


def clip_table(b: Bench, rows: Sequence[dict[str, Any]]) -> None:
    """Print zero-shot classification and retrieval by CLIP for edited image embeddings."""
    names = {n: ".2f" for n in rows[0] if n != "method"}
    b.table(
        "CLIP itself: colour edited in image embeddings, read by zero-shot prompts and by retrieval",
        {"method": "", **names},
    )
    for row in rows:
        b.row(*row.values())


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw success (full lines) and the worst side effect (dashed) against the dose."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    reader = "pictures" if any(r["reader"] == "pictures" for r in rows) else "probe"
    mine = [r for r in rows if r["reader"] == reader and r["modality"] == "image"]
    attributes = [a for a in VISIBLE if any(r["attribute"] == a for r in mine)]
    names = ["latents: own out, target in", "latents: mean codes of 8", "centroid swap", "random direction, equal norm"]
    fig, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True)
    for axis, attribute in zip(axes.flat, attributes, strict=False):
        for colour, name in enumerate(names):
            here = [r for r in mine if r["attribute"] == attribute and r["method"] == name]
            doses = sorted({r["dose"] for r in here})
            effects = [pooled_effect([r for r in here if r["dose"] == d]) for d in doses]
            low, high = [e.success.low for e in effects], [e.success.high for e in effects]
            axis.plot([0, *doses], [0, *(e.success.share for e in effects)], color=f"C{colour}", label=name)
            axis.fill_between(doses, low, high, color=f"C{colour}", alpha=0.15, linewidth=0)
            axis.plot([0, *doses], [0, *(e.worst for e in effects)], "--", color=f"C{colour}", linewidth=1)
        axis.axhline(LIMIT, color="grey", linewidth=0.5)
        axis.set_title(attribute)
        axis.set_ylim(0, 1)
    for axis in axes[-1]:
        axis.set_xlabel("dose")
    axes[0, 0].set_ylabel("share of samples")
    axes[1, 0].set_ylabel("share of samples")
    fig.suptitle(f"Target reached (full) and worst side effect (dashed), read by {reader}")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncol=4)
    fig.tight_layout(rect=(0, 0.05, 1, 1))
    fig.savefig(path, dpi=110)
