"""Does the name of a latent match the value that it encodes? All namers on the ground truth of the embedded world.

    python benchmarks/naming.py [--pairs 20480] [--seeds 0 1 2] [--judge]

For each seed, a dictionary is trained on the embedded world. The value that a latent encodes is the factor value with
which its activation correlates best, on half of the held-out pairs (column `truth`; none below .35). A name is correct
if it contains one of the caption words for that value (`circle`, `circles`, `disc`, `discs`).

The correlation tells how monosemantic a latent is. At .75 and above, it encodes one value. Between .35 and .75, it
mostly encodes a conjunction such as "one arrow", of which one word is correct. Image-only factors are never mentioned
in captions, so a vocabulary from captions cannot name them; the correct answer is no name.

With --judge, names are also tested on images by the plain twin, a separately trained model, to measure the circularity
of a model that judges itself.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
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
from cliplens.naming import chosen_modality, image_share, name_latents, split_evidence, words
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
from cliplens_plugins.autointerp import CaptionNamer, DecoderNamer, HeldOutScorer, SoftWpmiNamer, VocabularyNamer

NAMERS: tuple[Namer, ...] = (VocabularyNamer(), DecoderNamer(), SoftWpmiNamer(), CaptionNamer())
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
        for seed in b.args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings(pairs=f"world:{b.args.pairs}", seed=seed)
                parts, evidence, table = finished(run(settings, Path(folder) / "run"))
                judges = (TwinJudge(api.load("world-plain")),) if b.args.judge else ()
                for namer in NAMERS:
                    count_right(namer, evidence, table, seed, right)
                    embed = partial(embed_texts, parts.clip)
                    found = name_latents(evidence, namer, scorers=[HeldOutScorer(judges=judges)], embed=embed)
                    for row in next(iter(found.tables.values())):
                        key = (namer.name, row["named from"], row["tested on"], row["test"], row["judge"])
                        tests[key].append((row["score"], row["shuffled names"]))
        show(b, right, tests)


def count_right(
    namer: Namer,
    evidence: Evidence,
    table: LatentTable,
    seed: int,
    right: dict[tuple[str, str, str, str], list[int]],
) -> None:
    """Add the names of one dictionary to the counts (correct, unnamed, all) by namer, source, class and band."""
    naming, _ = split_evidence(evidence)
    images, captions = namer.from_images(naming), namer.from_captions(naming)
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
