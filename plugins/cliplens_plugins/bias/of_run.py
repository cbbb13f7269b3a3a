"""Make the study of bias of one run: read the data, fit and measure the methods, and write the record."""

from collections.abc import Sequence
from typing import Any

import torch

from cliplens.errors import CliplensError, InputError, MissingExtraError
from cliplens.run import OpenedRun
from cliplens.studies import ScoredClasses, Study, classes_of_table, twin_of, with_interval
from cliplens_plugins.bias.association import pair_bias, prototypes
from cliplens_plugins.bias.data import BiasData
from cliplens_plugins.bias.methods import (
    CLASSES,
    Method,
    attribute_latents,
    dense_codes,
    dictionary_methods,
    embedding_methods,
    group_means,
    leace_method,
)
from cliplens_plugins.bias.options import BiasOptions
from cliplens_plugins.bias.planted import WHERE, planted_data, planted_pairs, sentences_of
from cliplens_plugins.bias.readers import read_bias_set
from cliplens_plugins.bias.reading import read_data, utility_of
from cliplens_plugins.bias.record import NOTES, PLANTED_NOTES, cost_table, fairness_table, findings, skew_table
from cliplens_plugins.bias.study import measure

WORLD = "world"
EMBEDDING = "hook_embedding"
ACTS = 2048
PLANTED = 600
"""Number of pairs for each planted bias."""


def study_of_run(run: OpenedRun, asked: BiasOptions) -> Study:
    """Return the record of the study of a run.

    Raises:
        InputError: the data cannot be read, or no data are given and the run is not of the world.
    """
    utility = utility_of(run, asked)
    if asked.data is not None:
        data, notes = read_data(run, read_bias_set(asked.data, group=asked.group, target=asked.target), utility, asked)
    elif run.asked.model.startswith(WORLD):
        data, notes = planted_data(run.clip, rate=asked.rate, utility=utility, seed=asked.seed), list(PLANTED_NOTES)
    else:
        raise InputError(
            expected="labelled images for a study of bias",
            found="none (only runs of the embedded world can plant a bias)",
            fix="pass --data waterbirds:FOLDER, celeba:FOLDER, fairface:FOLDER, utkface:FOLDER or emoji:noto",
        )
    methods, more = _methods(run, data, asked)
    found = measure(data, methods, draws=asked.draws, seed=asked.seed)
    notes += more
    tables: dict[str, Sequence[dict[str, Any]]] = {"Fairness of the predictions": fairness_table(found)}
    tables["Skew of rankings and association of words"] = skew_table(found)
    tables["Leakage: what probes still read after the change, and what else the change costs"] = cost_table(found)
    carried, latents = _carriers(run, data, asked)
    tables["Latents that carry the attribute, by class"] = carried
    if asked.data is None:
        tables["Planted bias: rate and modality recovered from pairs"] = recovered(run, seed=asked.seed)
    return Study(
        name="bias",
        title=f"Bias: {', '.join(data.group_names)} in {', '.join(data.target_names)}",
        findings=findings(found),
        tables=tables,
        notes=(*notes, *NOTES),
        settings=vars(asked),
        latents={"Latents that tell the groups apart, strongest first": latents} if latents else {},
        data={"methods": [{"method": m.method.name, "information": m.method.information, **m.figures} for m in found]},
    )


def recovered(run: OpenedRun, *, rate: float = 0.6, n: int = PLANTED, seed: int = 0) -> list[dict[str, Any]]:
    """Return the rates measured in pairs of the world with a bias planted in images, captions, both or neither."""
    banks = [prototypes(sentences_of(run.clip, factor)) for factor in ("shape", "colour")]
    rows = []
    for where in WHERE:
        found = pair_bias(*planted_pairs(run.clip, n, rate, where, seed=seed), *banks, seed=seed)
        rows.append(
            {
                "planted in": where,
                "planted rate": 0.0 if where == "neither" else rate,
                "rate in images": with_interval(found.image.rate, found.image.low, found.image.high),
                "rate in captions": with_interval(found.text.rate, found.text.low, found.text.high),
                "found in": found.where,
            }
        )
    return rows


def _methods(run: OpenedRun, data: BiasData, asked: BiasOptions) -> tuple[list[Method], list[str]]:
    methods, notes = embedding_methods(data), []
    try:
        methods.append(leace_method(data))
    except MissingExtraError as error:
        notes.append(f"LEACE is left out. {error}")
    if any(site.hook != EMBEDDING for site in run.asked.sites) or len(run.asked.sites) < 2:
        return methods, [
            *notes,
            "Methods over latents are left out: they need a dictionary of both final embeddings.",
        ]
    how: dict[str, Any] = {"seed": asked.seed, "top": asked.top}
    methods += dictionary_methods(data, run.dictionary, classes_of_table(run.table), controls=asked.controls, **how)
    try:
        twin, scored = twin_of(run.dictionary, run.scored_acts(ACTS), seed=asked.seed)
    except CliplensError as error:
        return methods, [*notes, f"The control with an untrained dictionary is left out. {error}"]
    own = dictionary_methods(data, twin, scored, controls=0, **how)
    kept = [m for m in own if m.name.startswith(("S&P Top-K", "ablate top", "SEM_b")) and " of " not in m.name]
    return [*methods, *(_renamed(m) for m in kept if m.name in ("S&P Top-K", "SEM_b") or "ablate" in m.name)], notes


def _renamed(method: Method) -> Method:
    return Method(f"{method.name} (never trained)", method.information, method.image, method.text, method.latents)


def _carriers(run: OpenedRun, data: BiasData, asked: BiasOptions) -> tuple[list[dict[str, Any]], list[int]]:
    if any(site.hook != EMBEDDING for site in run.asked.sites):
        return [], []
    scored: ScoredClasses = classes_of_table(run.table)
    codes = dense_codes(run.dictionary, data.image[torch.as_tensor(data.train)], "image")
    group = data.group[data.train]
    spread = group_means(codes, group).var(0, unbiased=False).cpu().numpy()
    latents = list(attribute_latents(codes, group, scored.alive, asked.top))
    rows = []
    for name in CLASSES:
        of = scored.classes == name
        rows.append(
            {
                "class": name,
                "latents": int(of.sum()),
                f"among the top {len(latents)}": int(of[latents].sum()),
                "share of the variance between groups": float(spread[of].sum() / spread.sum())
                if spread.sum()
                else None,
            }
        )
    return rows, latents
