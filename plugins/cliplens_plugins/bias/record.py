"""Turn the measured figures of a study of bias into sentences, tables and notes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliplens.studies import with_interval
from cliplens_plugins.bias.study import Measured

FEW = 39
"""Random sets from which on a change outside all of theirs is called different: one more set is so in 5 % of cases."""
PLANTED_NOTES = (
    "The data are drawings of the world: red and blue circles and squares. In the training images the colour follows "
    "from the shape at the planted rate; the test images are balanced.",
    "Zero-shot classification uses no training images, so the planted rate affects only the figures named `trained`.",
)
NOTES = (
    "`trained` is a linear probe of the target on the changed training images: it inherits the bias left in them.",
    "Probes of the group are fitted again after every change. A leakage of 0.5 is chance.",
    "Methods use different information (column `told`): nothing, prompts, or labelled images. Compare "
    "methods with the same information.",
    "MaxSkew and NDKL are means over target classes, with intervals over sentences; accuracies have intervals over "
    "test images. No interval covers another dictionary or another model.",
)


def findings(found: Sequence[Measured]) -> list[str]:
    """Return the results of the table in sentences, bad results first."""
    by_name = {m.method.name: m.figures for m in found}
    none = by_name["none"]
    says = []
    linear = {name: f["leakage, linear"][0] for name, f in by_name.items() if name != "none"}
    best = min(linear, key=lambda name: linear[name])
    says.append(
        f"A linear probe reads the attribute with AUC {none['leakage, linear'][0]:.3f} before any change. The lowest "
        f"after a change is {linear[best]:.3f} ({best}); a non-linear probe then still reaches "
        f"{by_name[best]['leakage, MLP'][0]:.3f}."
    )
    says += [_best_worst_group(by_name, kind) for kind in ("trained", "zero-shot")]
    random = [f for n, f in by_name.items() if " random " in n and "never trained" not in n]
    ablated = next((f for n, f in by_name.items() if n.startswith("ablate top") and " of " not in n), None)
    if random and ablated is not None:
        change = none["leakage, linear"][0] - ablated["leakage, linear"][0]
        of_random = [none["leakage, linear"][0] - f["leakage, linear"][0] for f in random]
        says.append(
            f"Ablating the latents that carry the attribute lowers the AUC of the linear probe by {change:.3f}; "
            f"ablating as many random latents, by {np.mean(of_random):.3f} on average ({len(random)} draws, "
            f"{min(of_random):.3f} to {max(of_random):.3f}). {_beside_draws(change, of_random)}"
        )
    costly = [n for n, f in by_name.items() if n != "none" and f.get("R@1", 1.0) < none.get("R@1", 0.0) - 0.05]
    if costly:
        says.append(
            f"Retrieval falls by more than .05 with {', '.join(costly)}. Part of this is unavoidable: without the "
            "attribute, captions that differ only in it cannot be told apart."
        )
    return says


def _beside_draws(change: float, of_random: Sequence[float]) -> str:
    """Return whether the draws can tell a change from theirs: outside both ends of fewer than 39 is no 5 % level.

    >>> _beside_draws(0.2, [0.1, 0.3]), _beside_draws(0.4, [0.1, 0.3])
    ('It lies among the draws.', 'It lies outside the draws; so few of them are a hint and no test.')
    """
    if min(of_random) <= change <= max(of_random):
        return "It lies among the draws."
    return f"It lies outside the draws{'' if len(of_random) >= FEW else '; so few of them are a hint and no test'}."


def _best_worst_group(by_name: Mapping[str, dict[str, Any]], kind: str) -> str:
    """Return a sentence on the worst group: before, at best, and which methods change it beyond the intervals."""
    of = {name: figures[f"{kind} worst group"] for name, figures in by_name.items()}
    before, best = of["none"], max((n for n in of if n != "none"), key=lambda name: of[name][0])
    sure = [name for name, (_, low, _) in of.items() if low > before[2]]
    worse = [name for name, (_, _, high) in of.items() if high < before[1]]
    return (
        f"Worst group, {kind}: {before[0]:.3f} before, {of[best][0]:.3f} at best ({best}). The intervals exclude "
        f"the value before for {', '.join(sure) or 'no method'} (better) and {', '.join(worse) or 'no method'} (worse)."
    )


def fairness_table(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return one row per method: accuracies, worst groups, parity and equalised odds."""
    names = ("zero-shot worst group", "zero-shot gap", "zero-shot mean", "trained worst group", "trained gap")
    more = ("worst-group AUC", "parity difference", "equalised odds")
    return [
        {"method": m.method.name, "told": m.method.information, **_with(m, names), **{n: m.figures[n] for n in more}}
        for m in found
    ]


def skew_table(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return one row per method: skew of rankings, and association of words."""
    names = [n for n in found[0].figures if n.startswith(("MaxSkew", "NDKL"))]
    return [
        {"method": m.method.name, **_with(m, names), **{n: m.figures[n] for n in ("WEAT d", "WEAT p")}} for m in found
    ]


def cost_table(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return one row per method: what probes of the group still read, and retrieval and cosine after the change."""
    names = ("leakage, linear", "leakage, MLP", "leakage, logits")
    more = [n for n in found[0].figures if n in ("R@1", "unrelated zero-shot") or n.startswith("cosine")]
    return [{"method": m.method.name, **_with(m, names), **{n: m.figures[n] for n in more}} for m in found]


def _with(measured: Measured, names: Sequence[str]) -> dict[str, str]:
    return {name: with_interval(*measured.figures[name]) for name in names}
