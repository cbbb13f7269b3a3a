"""The study of one run: its data, its methods, the table, and what came out, as a record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliplens.errors import BadPictureError, CliplensError, InputError, MissingExtraError
from cliplens.hooked import TEMPLATES
from cliplens.pictures import open_picture
from cliplens.run import OpenedRun
from cliplens.studies import ScoredClasses, Study, classes_of_table, twin_of, with_interval
from cliplens_plugins.bias.association import pair_bias, prototypes
from cliplens_plugins.bias.data import BiasData, Prompts, Utility
from cliplens_plugins.bias.methods import (
    CLASSES,
    TOP,
    Method,
    attribute_latents,
    dense_codes,
    dictionary_methods,
    embedding_methods,
    group_means,
    leace_method,
)
from cliplens_plugins.bias.pictures import LabelledPictures
from cliplens_plugins.bias.planted import WHERE, embed_texts, planted_data, planted_pairs, sentences_of
from cliplens_plugins.bias.readers import read_bias_set
from cliplens_plugins.bias.study import DRAWS, Measured, measure

WORLD = "world"
EMBEDDING = "hook_embedding"
ACTS = 2048
PLANTED = 600
"""Pairs per planted bias."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study of bias is asked for."""

    data: str | None = None
    """NAME:FOLDER of a data set on disk; None plants a bias on the world."""
    group: str | None = None
    target: str | None = None
    queries: Path | None = None
    """File with a sentence a line, for skew; None takes the target classes."""
    images: int = 2000
    """Images at most, for training and for testing each."""
    rate: float = 0.95
    pairs: int = 384
    top: int = TOP
    controls: int = 3
    draws: int = DRAWS
    """Bootstrap samples of test images."""
    seed: int = 0


def study_of_run(run: OpenedRun, asked: Asked) -> Study:
    """Return the record of the study of a run.

    Raises:
        InputError: the data cannot be read, or there are none and the run is not of the world.
    """
    utility = _utility(run, asked)
    if asked.data is not None:
        data, notes = _read(run, read_bias_set(asked.data, group=asked.group, target=asked.target), utility, asked)
    elif run.asked.model.startswith(WORLD):
        data, notes = planted_data(run.clip, rate=asked.rate, utility=utility, seed=asked.seed), list(PLANTED_NOTES)
    else:
        raise InputError(
            expected="labelled images for a study of bias",
            found="none: only runs of the embedded world can plant a bias",
            fix="give --data waterbirds:FOLDER, celeba:FOLDER, fairface:FOLDER, utkface:FOLDER or emoji:noto",
        )
    methods, more = _methods(run, data, asked)
    found = measure(data, methods, draws=asked.draws, seed=asked.seed)
    notes += more
    tables: dict[str, Sequence[dict[str, Any]]] = {"Fairness of the predictions": _fairness(found)}
    tables["Skew of rankings and association of words"] = _skews(found)
    tables["Leakage: what probes still read after the change, and what else the change costs"] = _costs(found)
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


PLANTED_NOTES = (
    "The data are drawings of the world: red and blue circles and squares. In the training half the colour follows "
    "from the shape at the planted rate; the test half is balanced.",
    "Zero-shot uses no training images, so the planted rate can only move the figures named `trained`.",
)
NOTES = (
    "`trained` is a linear probe of the target on the changed training images: it inherits what bias they still hold.",
    "Probes of the group are fitted anew after every change. A leakage of 0.5 is chance.",
    "Methods differ in what they are told: prompts only, or labelled images. Compare within one column `told`.",
    "MaxSkew and NDKL are means over target classes; their intervals are over sentences, those of accuracies over test "
    "images. None of them covers another dictionary or another model.",
)


def recovered(run: OpenedRun, *, rate: float = 0.6, n: int = PLANTED, seed: int = 0) -> list[dict[str, Any]]:
    """Return the rates found in pairs of the world with a bias planted in images, in captions, in both, in neither."""
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


def findings(found: Sequence[Measured]) -> list[str]:
    """Return what the table says, in sentences, what hurts first."""
    by_name = {m.method.name: m.figures for m in found}
    none = by_name["none"]
    says = []
    linear = {name: f["leakage, linear"][0] for name, f in by_name.items() if name != "none"}
    best = min(linear, key=lambda name: linear[name])
    says.append(
        f"A linear probe reads the attribute with AUC {none['leakage, linear'][0]:.3f} before any change. The lowest "
        f"after a change is {linear[best]:.3f} ({best}); a non-linear probe still reads it there with "
        f"{by_name[best]['leakage, MLP'][0]:.3f}."
    )
    says += [_best_worst_group(by_name, kind) for kind in ("trained", "zero-shot")]
    random = [f for n, f in by_name.items() if " random " in n and "never trained" not in n]
    ablated = next((f for n, f in by_name.items() if n.startswith("ablate top") and " of " not in n), None)
    if random and ablated is not None:
        change = none["leakage, linear"][0] - ablated["leakage, linear"][0]
        of_random = float(np.mean([none["leakage, linear"][0] - f["leakage, linear"][0] for f in random]))
        says.append(
            f"Ablating the latents that carry the attribute lowers the linear probe by {change:.3f}, as many random "
            f"latents by {of_random:.3f} on average."
        )
    costly = [n for n, f in by_name.items() if n != "none" and f.get("R@1", 1.0) < none.get("R@1", 0.0) - 0.05]
    if costly:
        says.append(
            f"Retrieval falls by more than .05 with {', '.join(costly)}. Part of it must: captions that name the "
            "attribute cannot be told apart without it."
        )
    return says


def _best_worst_group(by_name: Mapping[str, dict[str, Any]], kind: str) -> str:
    """Return what happens to the worst group, and whether a method improves it beyond the intervals."""
    of = {name: figures[f"{kind} worst group"] for name, figures in by_name.items()}
    before, best = of["none"], max((n for n in of if n != "none"), key=lambda name: of[name][0])
    sure = [name for name, (_, low, _) in of.items() if low > before[2]]
    worse = [name for name, (_, _, high) in of.items() if high < before[1]]
    return (
        f"Worst group, {kind}: {before[0]:.3f} before, {of[best][0]:.3f} at best ({best}). Beyond the intervals it is "
        f"better with {', '.join(sure) or 'no method'} and worse with {', '.join(worse) or 'no method'}."
    )


def _methods(run: OpenedRun, data: BiasData, asked: Asked) -> tuple[list[Method], list[str]]:
    methods, notes = embedding_methods(data), []
    try:
        methods.append(leace_method(data))
    except MissingExtraError as error:
        notes.append(f"LEACE is left out. {error}")
    if any(site.hook != EMBEDDING for site in run.asked.sites) or len(run.asked.sites) < 2:
        return methods, [*notes, "Methods over latents need a dictionary of both final embeddings; this run has none."]
    how: dict[str, Any] = {"seed": asked.seed, "top": asked.top}
    methods += dictionary_methods(data, run.dictionary, classes_of_table(run.table), controls=asked.controls, **how)
    try:
        twin, scored = twin_of(run.dictionary, run.scored_acts(ACTS), seed=asked.seed)
    except CliplensError as error:
        return methods, [*notes, f"No control by a dictionary that was never trained: {error}"]
    own = dictionary_methods(data, twin, scored, controls=0, **how)
    kept = [m for m in own if m.name.startswith(("S&P Top-K", "ablate top", "SEM_b")) and " of " not in m.name]
    return [*methods, *(_renamed(m) for m in kept if m.name in ("S&P Top-K", "SEM_b") or "ablate" in m.name)], notes


def _renamed(method: Method) -> Method:
    return Method(f"{method.name} (never trained)", method.information, method.image, method.text, method.latents)


def _fairness(found: Sequence[Measured]) -> list[dict[str, Any]]:
    names = ("zero-shot worst group", "zero-shot gap", "zero-shot mean", "trained worst group", "trained gap")
    more = ("worst-group AUC", "parity difference", "equalised odds")
    return [
        {"method": m.method.name, "told": m.method.information, **_with(m, names), **{n: m.figures[n] for n in more}}
        for m in found
    ]


def _skews(found: Sequence[Measured]) -> list[dict[str, Any]]:
    names = [n for n in found[0].figures if n.startswith(("MaxSkew", "NDKL"))]
    return [
        {"method": m.method.name, **_with(m, names), **{n: m.figures[n] for n in ("WEAT d", "WEAT p")}} for m in found
    ]


def _costs(found: Sequence[Measured]) -> list[dict[str, Any]]:
    names = ("leakage, linear", "leakage, MLP", "leakage, logits")
    more = [n for n in found[0].figures if n in ("R@1", "unrelated zero-shot") or n.startswith("cosine")]
    return [{"method": m.method.name, **_with(m, names), **{n: m.figures[n] for n in more}} for m in found]


def _with(measured: Measured, names: Sequence[str]) -> dict[str, str]:
    return {name: with_interval(*measured.figures[name]) for name in names}


def _carriers(run: OpenedRun, data: BiasData, asked: Asked) -> tuple[list[dict[str, Any]], list[int]]:
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


def _utility(run: OpenedRun, asked: Asked) -> Utility | None:
    try:
        images, tokens = run.inputs(asked.pairs)
    except CliplensError:
        return None
    clip = run.clip
    with torch.no_grad():
        image = torch.cat([clip.encode_image(x.to(clip.device), normalize=True) for x in images.split(128)])
        text = torch.cat([clip.encode_text(x.to(clip.device), normalize=True) for x in tokens.split(256)])
    return Utility(image.flatten(1).double().cpu(), text.flatten(1).double().cpu())


def _read(
    run: OpenedRun, pictures: LabelledPictures, utility: Utility | None, asked: Asked
) -> tuple[BiasData, list[str]]:
    rng = np.random.default_rng(asked.seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(part))[: asked.images] for part in (pictures.train, ~pictures.train)]
    )
    image, good = _embedded(run, [pictures.paths[i] for i in chosen])
    kept = chosen[good]
    notes = (
        [f"{len(chosen) - len(kept)} of {len(chosen)} pictures could not be opened."] if len(kept) < len(chosen) else []
    )
    prompts = _prompts(run, pictures, asked)
    data = BiasData(
        image, pictures.group[kept], pictures.target[kept], pictures.train[kept],
        pictures.group_words, pictures.target_words, prompts, utility,
    )  # fmt: skip
    return data, notes


@torch.no_grad()
def _embedded(run: OpenedRun, paths: Sequence[Path], size: int = 64) -> tuple[Tensor, np.ndarray]:
    preprocess: Any = run.clip.preprocess
    good = np.zeros(len(paths), dtype=bool)
    rows: list[Tensor] = []
    for start in range(0, len(paths), size):
        ready = []
        for i, path in enumerate(paths[start : start + size], start):
            try:
                ready.append(preprocess(open_picture(path)))
                good[i] = True
            except BadPictureError:
                continue
        if ready:
            batch = torch.stack(ready).to(run.clip.device, run.clip.dtype)
            rows.append(run.clip.encode_image(batch, normalize=True).flatten(1).double().cpu())
    if not rows:
        raise InputError(
            expected="pictures that can be opened", found=f"none of {len(paths)}, such as {paths[0]}",
            fix="give the folder of the data set that holds its pictures",
        )  # fmt: skip
    return torch.cat(rows), good


def _prompts(run: OpenedRun, pictures: LabelledPictures, asked: Asked) -> Prompts:
    def said(words: Sequence[str]) -> Tensor:
        return torch.stack(
            [embed_texts(run.clip, [t.replace("{}", word) for t in pictures.templates]) for word in words]
        )

    named = {w for words in (*pictures.group_words, *pictures.target_words) for w in words.casefold().split()}
    lines = [str(p.caption) for p in (run.pairs[i] for i in range(min(len(run.pairs), 4 * 328))) if p.caption]
    neutral = [c for c in dict.fromkeys(lines) if not named & set(c.casefold().split())][:328]
    if len(neutral) < 2:
        neutral = [t.replace("{}", "thing") for t in TEMPLATES]
    queries = None if asked.queries is None else embed_texts(run.clip, _sentences(asked.queries))[:, None]
    return Prompts(said(pictures.target_words), said(pictures.group_words), embed_texts(run.clip, neutral), queries)


def _sentences(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            expected=f"a text file at {path}", found=str(error), fix="give --queries a file with a sentence a line"
        ) from error
    if not lines:
        raise InputError(expected=f"a sentence a line in {path}", found="none", fix="write at least one")
    return lines
