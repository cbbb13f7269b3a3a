"""Put the tables of attacks into sentences, bad news first."""

from collections.abc import Mapping, Sequence
from typing import Any

CLEAR = 0.05
"""Difference of mean AUROCs below which one detector is not called better."""
AGAINST_ONE = "difference to this draw"
Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
NOTHING_TO_LOSE = (
    "No picture is recognised without an attack, so neither attacks on zero-shot accuracy nor the checks for masked "
    "gradients say anything. Use more --images, other --labels, or a model that knows such pictures."
)


def lead(cell: Any) -> float:
    """Return the figure of a cell such as `0.5 (0.4 to 0.6)`.

    >>> lead("0.500 (0.250 to 0.750)"), lead(0.25)
    (0.5, 0.25)
    """
    return float(str(cell).split(maxsplit=1)[0])


def ends(cell: Any) -> tuple[float, float]:
    """Return the interval of a cell; its figure twice where it has none.

    >>> ends("0.500 (0.250 to 0.750)")
    (0.25, 0.75)
    """
    low, _, high = str(cell).partition("(")[2].rstrip(")").partition(" to ")
    return (float(low), float(high)) if high else (lead(cell), lead(cell))


def findings(tables: Tables, reference: float, largest: float) -> list[str]:
    """Return the findings of a study.

    Args:
        tables: the tables by title; missing ones are left out.
        reference: the eps of detectors and defences, in levels.
        largest: the largest eps.
    """
    of = {title.split(":")[0].split(",")[0]: rows for title, rows in tables.items()}
    outcomes = of["What the model says under attack"]
    nothing_to_lose = lead(outcomes[0]["zero-shot"]) == 0
    says = [NOTHING_TO_LOSE] if nothing_to_lose else _accuracy(outcomes, reference)
    says += _adaptive(of.get("Attacks that avoid the detector", ()))
    says += _clean_ups(of.get("Clean-up", ()))
    says += _detectors(of.get("Detectors on pictures they were not fitted on", ()))
    says += _elsewhere(of.get("Detectors on pictures of another data set", ()))
    says += _classes(of.get("Moved until it says another caption", ()), largest)
    says += _shares(of.get("Which class moves", ()), reference)
    says += _words(of.get("Words written on the picture", ()))
    return [*(() if nothing_to_lose else _checks(of.get("Signs of a masked gradient", ()))), *says]


def _checks(rows: Sequence[Row]) -> list[str]:
    failed = [row for row in rows if not row["holds"]]
    if failed:
        named = "; ".join(f"{r['check']} ({r['accuracy']:.3f} and {r['compared with']:.3f})" for r in failed)
        return [f"{len(failed)} of {len(rows)} checks for masked gradients fail, so accuracies are too high: {named}."]
    return [f"All {len(rows)} checks for masked gradients hold."] if rows else []


def _accuracy(rows: Sequence[Row], reference: float) -> list[str]:
    clean = rows[0]
    margin = {row["eps"]: row for row in rows if row["attack"] == "zero-shot margin"}
    if not margin:
        return []
    falls = ", ".join(f"{lead(row['zero-shot']):.3f} at {eps:g}" for eps, row in margin.items())
    row = margin.get(reference, next(iter(margin.values())))
    says = [
        f"Zero-shot accuracy falls from {lead(clean['zero-shot']):.3f} to {falls} levels of 255. Noise as large leaves "
        f"{lead(row['zero-shot, equal noise']):.3f} at {row['eps']:g}."
    ]
    if row["zero-shot, other model"] is not None:
        says.append(
            f"The same pictures lower another model from {lead(clean['zero-shot, other model']):.3f} to "
            f"{lead(row['zero-shot, other model']):.3f} at {row['eps']:g}."
        )
    return says


def _adaptive(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    key = "misclassified, not found by latents"
    best = max(rows, key=lambda row: lead(row[key]))
    return [
        f"An attack that knows the detector of latents gets {lead(best[key]):.3f} of the pictures misclassified and "
        f"not found, one that ignores it {lead(rows[0][key]):.3f}."
    ]


def _clean_ups(rows: Sequence[Row]) -> list[str]:
    tried = [row for row in rows if row["clean-up"] != "none"]
    if not tried:
        return []
    unaware = max(tried, key=lambda row: lead(row["attacked, unaware of it"]))
    through = max(tried, key=lambda row: lead(row["right under all of them"]))
    none, knows, ignores = rows[0], through["right under all of them"], unaware["attacked, unaware of it"]
    return [
        f"No clean-up gives more than {lead(knows):.3f} accuracy once the attack goes through it "
        f"({through['clean-up']}; {lead(none['attacked, unaware of it']):.3f} with none). Unaware of it the best has "
        f"{lead(ignores):.3f} ({unaware['clean-up']}), and {lead(unaware['clean']):.3f} on clean pictures."
    ]


def _detectors(rows: Sequence[Row]) -> list[str]:
    other = [row for row in rows if not row["fitted on it"]]
    if not other:
        return []
    means = {
        name: sum(lead(r["AUROC"]) for r in other if r["detector"] == name)
        / sum(1 for r in other if r["detector"] == name)
        for name in dict.fromkeys(r["detector"] for r in other)
    }
    told = ", ".join(f"{name} {value:.3f}" for name, value in sorted(means.items(), key=lambda item: -item[1]))
    verdict = "do better" if means["latents"] > means["linear probe"] + CLEAR else "do no better"
    return [
        f"Latents {verdict} than a linear probe on raw activations. Mean AUROC over attacks and sizes they were not "
        f"fitted on: {told}."
    ]


def _elsewhere(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(row["detector"], []).append(row)
    told = {
        name: tuple(sum(lead(r[key]) for r in these) / len(these) for key in ("AUROC", "false at 5%"))
        for name, these in of.items()
    }
    each = ", ".join(f"{name} {value:.3f} ({false:.3f})" for name, (value, false) in sorted(told.items()))
    return [
        f"On pictures of {rows[0]['pictures']}, which no detector was fitted on, the mean AUROC is (in brackets the "
        f"share of clean pictures that a threshold for 5 % calls attacked): {each}."
    ]


def _classes(rows: Sequence[Row], largest: float) -> list[str]:
    says = []
    for goal in ("picture", "caption"):
        here = [r for r in rows if r["goal"] == goal and r["eps"] == largest and r[AGAINST_ONE] is not None]
        if not here:
            continue
        more = [r["latents"] for r in here if ends(r[AGAINST_ONE])[0] > 0]
        fewer = [r["latents"] for r in here if ends(r[AGAINST_ONE])[1] < 0]
        told = ", ".join(f"{r['latents']} {lead(r['nearer to the target']):.3f}" for r in here)
        says.append(
            f"Latents moved to those of another {goal} bring pictures nearer to its caption than to their own: {told} "
            f"(eps {largest:g}). More than one draw of as many random latents: {', '.join(more) or 'none'}; fewer: "
            f"{', '.join(fewer) or 'none'}. Another draw is another attack and may say otherwise."
        )
    return says


def _shares(rows: Sequence[Row], reference: float) -> list[str]:
    here = [r for r in rows if r["attack"] == "zero-shot margin" and r["eps"] == reference]
    told = []
    for row in here:
        classes = [name for name in ("ImgD", "TextD", "CrossD") if row.get(name) is not None]
        each = ", ".join(f"{name} {row[name]}" for name in classes)
        told.append(f"{row['dictionary']}: {each} ({_against_random(row, classes)})")
    if not told:
        return []
    return [f"Share of the change over share of the energy, margin attack at {reference:g}. {'; '.join(told)}."]


def _against_random(row: Row, classes: Sequence[str]) -> str:
    """Return which classes move more and less than random sets of latents as large as they are."""
    known = {name: ends(cell) for name in classes if (cell := row.get(f"{name} beyond random")) is not None}
    more = [name for name, (low, _) in known.items() if low > 0]
    less = [name for name, (_, high) in known.items() if high < 0]
    return f"more than random sets as large: {', '.join(more) or 'none'}; less: {', '.join(less) or 'none'}"


def _words(rows: Sequence[Row]) -> list[str]:
    by_case = {row["on the picture"]: row for row in rows}
    if not by_case:
        return []
    word, beyond = by_case["wrong word"], by_case["wrong word"]["says the word, beyond scrambled letters"]
    reads = "reads" if ends(beyond)[0] > 0 else "does not read"
    scrambled, clean, box = (by_case[name] for name in ("scrambled word", "clean", "empty box"))
    return [
        f"The model {reads} words on pictures: with a wrong word it says that word in "
        f"{lead(word['says the wrong word']):.3f}, with its letters scrambled in "
        f"{lead(scrambled['says the wrong word']):.3f} (difference {beyond}). The object is recognised in "
        f"{lead(clean['says the object']):.3f} clean, {lead(word['says the object']):.3f} with the word, "
        f"{lead(box['says the object']):.3f} with an empty box of the same size."
    ]
