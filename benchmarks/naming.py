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
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from _bench import bench
from _naming.counts import Answer, Counted, count, finished
from _naming.tables import show, show_names
from cliplens import api
from cliplens.contracts import Judge
from cliplens.hooked import HookedCLIP
from cliplens.records import LatentTable, PairedActs
from cliplens.run import run
from cliplens.settings import Settings
from cliplens.world import FACTORS
from cliplens.world.captions import WORDS

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


def answers(table: LatentTable) -> list[Answer | None]:
    """Return the right name of each latent; None for latents without a label."""
    rows = zip(table["truth"], table["truth_modality"], table["truth_correlation"], strict=True)
    return [
        Answer(CLASSES[str(modality)], frozenset(accepted(str(truth))), float(correlation)) if truth else None
        for truth, modality, correlation in rows
    ]


def main() -> None:
    with bench(
        __file__, __doc__, pairs=20480, seeds=[0, 1, 2], judge=(False, "test names by the plain twin as well")
    ) as b:
        counted = Counted()
        for seed in b.args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings(pairs=f"world:{b.args.pairs}", seed=seed)
                context, evidence, table = finished(run(settings, Path(folder) / "run"))
                judges = (TwinJudge(api.load("world-plain")),) if b.args.judge else ()
                count((context, evidence), answers(table), counted, seed=seed, judges=judges)
        show(b, counted, CLASSES.values())
        show_names(b, counted.named)


if __name__ == "__main__":
    main()
