"""Does the name of a latent match the value that it encodes? All namers on the ground truth of the embedded world.

    python benchmarks/naming.py [--pairs 20480] [--seeds 0 1 2] [--judge]

For each seed, a dictionary is trained on the embedded world. The value that a latent encodes is the factor value with
which its activation correlates best, on half of the held-out pairs (column `truth`; none below .35). A name is correct
if it contains one of the caption words for that value (`circle`, `circles`, `disc`, `discs`).

The correlation tells how monosemantic a latent is. At .75 and above, it encodes one value. Between .35 and .75, it
mostly encodes a conjunction such as "one arrow", of which one word is correct. Image-only factors are never mentioned
in captions, so a vocabulary from captions cannot name them; the correct answer is no name.

One more table: how often latents with the same decoder row in two seeds (mutually nearest, cosine at least .7) have the
same name, how many named latents share their name with another one, and what each namer costs.

With --judge, names are also tested on images by the plain twin, a separately trained model, to measure the circularity
of a model that judges itself.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest

from _bench import Bench, bench
from cliplens import api
from cliplens.contracts import Judge, Namer
from cliplens.hooked import HookedCLIP
from cliplens.naming import chosen_modality, image_share, name_agreement, name_latents, split_evidence, words
from cliplens.records import Evidence, LatentTable, Name, PairedActs
from cliplens.run import OpenedRun, run
from cliplens.run.context import RunContext
from cliplens.run.naming import embed_texts, evidence_for
from cliplens.run.scoring import EXEMPLARS, held_out_batches
from cliplens.runfolder import RunFolder
from cliplens.settings import Settings
from cliplens.store import Cache, Group
from cliplens.tally import TopSamples
from cliplens.world import FACTORS
from cliplens.world.captions import WORDS
from cliplens_plugins.autointerp import (
    ApartNamer,
    CaptionNamer,
    DecoderNamer,
    HeldOutScorer,
    NeighbourNamer,
    SoftWpmiNamer,
    VocabularyNamer,
)

NAMERS: tuple[Namer, ...] = (
    VocabularyNamer(),
    DecoderNamer(),
    SoftWpmiNamer(),
    CaptionNamer(),
    NeighbourNamer(),
    ApartNamer(),
)
SAME = 0.7
"""Least cosine of decoder rows that count as the same latent of two dictionaries."""


@dataclass
class Named:
    """The final names of one namer on one dictionary, and what they cost."""

    seed: int
    names: list[str | None]
    decoder: np.ndarray
    """Unit rows of living latents; others are zero."""
    seconds: float


BANDS = ((0.75, 1.01, "one value (>= .75)"), (0.5, 0.75, ".50 to .75"), (0.35, 0.5, ".35 to .50"))
CLASSES = {"CrossD": "shared", "TextD": "text only", "ImgD": "image only"}
SAID = {"past": {"was"}, "present": {"is"}, "future": {"will", "be"}, "polite": {"please"}, "rude": {"oi"}}
"""Caption words of values that differ from the name of the value."""


class TwinJudge(Judge):
    """A judge that uses another model."""

    name = "world-plain"

    def __init__(self, clip: HookedCLIP) -> None:
        self._clip = clip

    @torch.no_grad()
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        seen = said = None
        if images is not None:
            seen = self._clip.encode_image(torch.stack([self._clip.preprocess(i) for i in images]), normalize=True)
        if captions is not None:
            said = self._clip.encode_text(self._clip.tokenizer(list(captions)), normalize=True)
        return PairedActs(tuple(ids), seen, said)


def accepted(truth: str) -> set[str]:
    """Return the caption words for a factor value."""
    factor, value = truth.split("=")
    if factor not in WORDS:
        return SAID.get(value, {value})
    said = set(WORDS[factor][FACTORS[factor].values.index(value)])
    return said | {f"{w}s" for w in said} | {f"{w}es" for w in said} if factor == "shape" else said


def finished(folder: RunFolder) -> tuple[RunContext, Evidence, LatentTable]:
    """Return the context of a finished run, with the evidence from which its names were made."""
    run = OpenedRun(folder)
    cache = Cache.open(folder.activations)
    context = RunContext(run.clip, run.pairs, cache, run.dictionary, run.asked, folder, Group.current())
    tops = [TopSamples(site.modality, top=EXEMPLARS) for site in run.asked.sites]
    for batch in held_out_batches(context):
        for top in tops:
            top.update(batch)
    by_id = {pair.id: pair for pair in run.pairs}
    table = LatentTable.load(folder.latents)
    evidence = evidence_for(context, {t.modality: t.exemplars(by_id) for t in tops}, table["alive"].astype(bool))
    return context, evidence, table


def shuffled(names: list[Name], seed: int) -> list[Name]:
    """Assign the names to other latents."""
    named = [k for k, n in enumerate(names) if n.text]
    order = np.random.default_rng(seed).permutation(named)
    moved = dict(zip(named, order, strict=True))
    return [names[int(moved[k])] if k in moved else n for k, n in enumerate(names)]


def main() -> None:
    with bench(
        __file__, __doc__, pairs=20480, seeds=[0, 1, 2], judge=(False, "test names by the plain twin as well")
    ) as b:
        right: dict[tuple[str, str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        tests: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
        named: dict[str, list[Named]] = defaultdict(list)
        for seed in b.args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings(pairs=f"world:{b.args.pairs}", seed=seed)
                parts, evidence, table = finished(run(settings, Path(folder) / "run"))
                judges = (TwinJudge(api.load("world-plain")),) if b.args.judge else ()
                for namer in NAMERS:
                    named[namer.name].append(count_right(namer, evidence, table, seed, right))
                    embed = partial(embed_texts, parts.clip)
                    found = name_latents(evidence, namer, scorers=[HeldOutScorer(judges=judges)], embed=embed)
                    for row in next(iter(found.tables.values())):
                        key = (namer.name, row["named from"], row["tested on"], row["test"], row["judge"])
                        tests[key].append((row["score"], row["shuffled names"]))
        show(b, right, tests)
        show_names(b, named)


def count_right(
    namer: Namer,
    evidence: Evidence,
    table: LatentTable,
    seed: int,
    right: dict[tuple[str, str, str, str], list[int]],
) -> Named:
    """Add the names of one dictionary to the counts (correct, unnamed, all) by namer, source, class and band."""
    naming, _ = split_evidence(evidence)
    started = time.process_time()
    images, captions = namer.from_images(naming), namer.from_captions(naming)
    seconds = time.process_time() - started
    chosen = chosen_modality(images, captions, image_share(naming))
    final = [images[k] if m == "image" else captions[k] for k, m in enumerate(chosen)]
    given = {"images": images, "captions": captions, "final": final, "final, shuffled": shuffled(final, seed)}
    for source, names in given.items():
        for k, name in enumerate(names):
            truth, correlation = str(table["truth"][k]), float(table["truth_correlation"][k])
            band = next((says for low, high, says in BANDS if truth and low <= correlation < high), None)
            if band is None:
                continue
            counts = right[namer.name, source, CLASSES[str(table["truth_modality"][k])], band]
            counts[0] += bool(name.text and set(words(name.text)) & accepted(truth))
            counts[1] += name.text is None
            counts[2] += 1
    alive = evidence.alive
    rows = evidence.decoder.detach().cpu().double().numpy() * alive[:, None]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return Named(seed, [n.text if a else None for n, a in zip(final, alive, strict=True)], rows, seconds)


def same_latents(a: Named, b: Named) -> list[tuple[int, int]]:
    """Return the latents whose decoder rows are each other's nearest, with a cosine of at least `SAME`."""
    near = a.decoder @ b.decoder.T
    there, back = near.argmax(1), near.argmax(0)
    return [(k, int(j)) for k, j in enumerate(there) if back[j] == k and near[k, j] >= SAME]


def show_names(b: Bench, named: dict[str, list[Named]]) -> None:
    """Print agreement between seeds, shared names and cost."""
    columns = {"namer": "", "same latents, both named": "d", "same name": ".3f", "other latents": ".3f"}
    columns |= {"named": "d", "share their name": ".3f", "CPU ms per named latent": ".2f"}
    b.table(
        "Agreement between seeds (0 no word shared, 1 all words of the shorter name), shared names and cost", columns
    )
    for namer, runs in named.items():
        agree, apart = [], []
        for n, one in enumerate(runs):
            for other in runs[n + 1 :]:
                pairs = [p for p in same_latents(one, other) if one.names[p[0]] and other.names[p[1]]]
                agree += [name_agreement(one.names[i], other.names[j]) for i, j in pairs]
                turned = [j for _, j in pairs[1:] + pairs[:1]]
                apart += [name_agreement(one.names[i], other.names[j]) for (i, _), j in zip(pairs, turned, strict=True)]
        texts = [[t for t in one.names if t] for one in runs]
        shared = sum(sum(of.count(t) > 1 for t in of) for of in texts)
        count = sum(map(len, texts))
        cost = 1e3 * sum(one.seconds for one in runs) / max(count, 1)
        means = [float(np.mean(x)) if x else float("nan") for x in (agree, apart)]
        b.row(namer, len(agree), *means, count, shared / max(count, 1), cost)


def counted(right: int, unnamed: int, of: int) -> str:
    """Return a cell of the table."""
    if not of:
        return "none"
    limits = binomtest(right, of).proportion_ci(method="wilson")
    return f"{right} / {of}, {limits.low:.2f} to {limits.high:.2f}; {unnamed}"


def show(
    b: Bench,
    right: dict[tuple[str, str, str, str], list[int]],
    tests: dict[tuple[str, ...], list[tuple[float, float]]],
) -> None:
    """Print both tables."""
    for kind in CLASSES.values():
        title = f"Right names of latents for {kind} factors: right / all, 95 % interval (Wilson); unnamed"
        b.table(title, ["namer", "named from", *(says for _, _, says in BANDS), "all"])
        for namer in NAMERS:
            for source in ("images", "captions", "final", "final, shuffled"):
                cells = [right.get((namer.name, source, kind, says), [0, 0, 0]) for _, _, says in BANDS]
                every = [sum(counts) for counts in zip(*cells, strict=True)]
                b.row(namer.name, source, *(counted(*counts) for counts in (*cells, every)))
    heads = ("namer", "named from", "tested on", "test", "judge")
    b.table(
        "Tests on samples no name was made from (mean over seeds of the mean over latents)",
        {**dict.fromkeys(heads, ""), "score": ".3f", "shuffled names": ".3f"},
    )
    for key, scores in tests.items():
        b.row(*key, *np.mean(scores, axis=0).tolist())


if __name__ == "__main__":
    main()
