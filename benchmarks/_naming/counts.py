"""Name the latents of a finished run by every namer, and count the right names."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cliplens.contracts import Judge, Namer
from cliplens.naming import chosen_modality, image_share, name_latents, split_evidence, words
from cliplens.records import Evidence, LatentTable, Name
from cliplens.run import OpenedRun
from cliplens.run.context import RunContext
from cliplens.run.naming import embed_texts, evidence_for
from cliplens.run.scoring import EXEMPLARS, held_out_batches
from cliplens.runfolder import RunFolder
from cliplens.store import Cache, Group
from cliplens.tally import TopSamples
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
SOURCES = ("images", "captions", "final", "final, shuffled")
BANDS = ((0.75, 1.01, "one value (>= .75)"), (0.5, 0.75, ".50 to .75"), (0.35, 0.5, ".35 to .50"))
"""Correlation of a latent with its value: from, to, and the head of the column."""


@dataclass(frozen=True)
class Answer:
    """The right name of a latent."""

    kind: str
    """Kind of the value, one table each."""
    accepted: frozenset[str]
    """Words for the value; a name with one of them is right. Empty if captions never say it."""
    correlation: float
    """Correlation of the latent with its value."""

    @property
    def band(self) -> str | None:
        """Return the column that the latent is counted in."""
        return next((says for low, high, says in BANDS if low <= self.correlation < high), None)


@dataclass
class Named:
    """The final names of one namer on one dictionary, and what they cost."""

    seed: int
    names: list[str | None]
    decoder: np.ndarray
    """Unit rows of living latents; others are zero."""
    seconds: float


@dataclass
class Counted:
    """All counts of a benchmark."""

    right: dict[tuple[str, str, str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    """Correct, unnamed, all: by namer, source, kind and band."""
    tests: dict[tuple[str, ...], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Score of a test and score of shuffled names, per dictionary: by namer, source, tested on, test and judge."""
    named: dict[str, list[Named]] = field(default_factory=lambda: defaultdict(list))
    """The names of each dictionary, by namer."""


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


def count(
    run: tuple[RunContext, Evidence],
    answers: Sequence[Answer | None],
    counted: Counted,
    *,
    seed: int,
    judges: Sequence[Judge] = (),
) -> None:
    """Add the names of every namer on one dictionary, and their tests, to the counts.

    Args:
        run: the first two results of `finished`.
        answers: the right name of each latent; None for latents without a label.
        counted: the counts to add to.
        seed: seed of the dictionary, and of the shuffled names.
        judges: models that also test the names.
    """
    context, evidence = run
    for namer in NAMERS:
        counted.named[namer.name].append(count_right(namer, evidence, answers, counted, seed))
        embed = partial(embed_texts, context.clip)
        found = name_latents(evidence, namer, scorers=[HeldOutScorer(judges=tuple(judges))], embed=embed)
        for row in next(iter(found.tables.values())):
            key = (namer.name, row["named from"], row["tested on"], row["test"], row["judge"])
            counted.tests[key].append((row["score"], row["shuffled names"]))


def count_right(
    namer: Namer, evidence: Evidence, answers: Sequence[Answer | None], counted: Counted, seed: int
) -> Named:
    """Add the right names of one namer to the counts, and return its final names."""
    naming, _ = split_evidence(evidence)
    started = time.process_time()
    images, captions = namer.from_images(naming), namer.from_captions(naming)
    seconds = time.process_time() - started
    chosen = chosen_modality(images, captions, image_share(naming))
    final = [images[k] if m == "image" else captions[k] for k, m in enumerate(chosen)]
    given = dict(zip(SOURCES, (images, captions, final, shuffled(final, seed)), strict=True))
    for source, names in given.items():
        for name, answer in zip(names, answers, strict=True):
            if answer is None or answer.band is None:
                continue
            counts = counted.right[namer.name, source, answer.kind, answer.band]
            counts[0] += bool(name.text and set(words(name.text)) & answer.accepted)
            counts[1] += name.text is None
            counts[2] += 1
    alive = evidence.alive
    rows = evidence.decoder.detach().cpu().double().numpy() * alive[:, None]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return Named(seed, [n.text if a else None for n, a in zip(final, alive, strict=True)], rows, seconds)
