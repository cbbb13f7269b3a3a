"""How long does it take to name many latents and to test the names?

    python benchmarks/naming_scale.py [--latents 4096 16384] [--width 512] [--words 5000] [--captions 20000]

The evidence is synthetic, with the sizes of a real run: 64 top samples per latent and modality from `--captions` pairs,
a background of 2,000 pairs, and a vocabulary of `--words` words with a realistic frequency distribution. Captions
have ten words; a latent fires on captions that contain one word. Times are CPU seconds of this process.
"""

import numpy as np
import torch

from _bench import Bench, bench, peak_memory, timed
from cliplens.naming import name_latents, split_evidence
from cliplens.records import Evidence, Exemplars, Pair, PairedActs, PairedCodes, SparseCodes
from cliplens_plugins.autointerp import HeldOutScorer, VocabularyNamer

TOP, BACKGROUND, SAID, FIRING = 64, 2000, 10, 20


def main() -> None:
    """Print a row per number of latents."""
    with bench(__file__, __doc__, latents=[1024, 4096, 16384], width=512, words=5000, captions=20000) as b:
        b.table(
            "CPU seconds",
            {"latents": "d", "names from images": ".1f", "names from captions": ".1f", "tests": ".1f", "all": ".1f"},
        )
        for latents in b.args.latents:
            measure(b, latents)


def measure(b: Bench, latents: int) -> None:
    """Add the row of one number of latents."""
    evidence = made_up(latents, b.args.width, b.args.words, b.args.captions)
    embed = embedding(evidence)
    naming, testing = split_evidence(evidence)
    namer, scorer = VocabularyNamer(least_image_score=0.0, least_caption_score=0.0), HeldOutScorer()
    seen, read = namer.from_images(naming), namer.from_captions(naming)
    b.row(
        latents,
        timed(lambda: namer.from_images(naming)),
        timed(lambda: namer.from_captions(naming)),
        timed(lambda: scorer.score(seen, read, testing, embed)),
        timed(lambda: name_latents(evidence, namer, scorers=[scorer], embed=embed)),
    )
    b.note(f"peak memory at {latents} latents, MiB", peak_memory(), ".0f")


def made_up(latents: int, width: int, words: int, captions: int) -> Evidence:
    """Return synthetic evidence for `latents` latents."""
    rng = np.random.default_rng(0)
    vocabulary = tuple(f"word{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(words))
    often = 1 / np.arange(1, words + 1)
    said = rng.choice(words, (captions + BACKGROUND, SAID), p=often / often.sum())
    directions = rng.normal(size=(words, width)) / width**0.5
    acts = directions[said].sum(axis=1) + 0.5 * rng.normal(size=(len(said), width)) / width**0.5
    pairs = [Pair(f"p{n}", None, " ".join(vocabulary[w] for w in row)) for n, row in enumerate(said)]
    holders = np.argsort(said[:captions].ravel(), kind="stable") // SAID
    starts = np.searchsorted(np.sort(said[:captions].ravel()), np.arange(words + 1))
    at = np.full((latents, TOP), -1, dtype=np.int64)
    for k in range(latents):
        word = k % words
        top = np.unique(holders[starts[word] : starts[word + 1]])[:TOP]
        at[k, : len(top)] = top
    values = np.where(at >= 0, 1.0, 0.0)
    rows = np.repeat(np.arange(BACKGROUND), FIRING)
    fires = np.sort(np.stack([rng.choice(latents, FIRING, replace=False) for _ in range(BACKGROUND)]), axis=1).ravel()
    codes = SparseCodes(torch.from_numpy(rows), torch.from_numpy(fires), torch.ones(len(rows)), BACKGROUND, latents)
    own, apart = tuple(pairs[:captions]), tuple(pairs[captions:])
    ids = tuple(p.id for p in apart)
    floats = torch.from_numpy(acts).float()
    return Evidence(
        d_sae=latents,
        alive=np.ones(latents, dtype=bool),
        images=Exemplars("image", own, at, values),
        texts=Exemplars("text", own, at, values),
        decoder=torch.from_numpy(rng.normal(size=(latents, width))).float(),
        vocabulary=vocabulary,
        vocabulary_acts=torch.from_numpy(directions).float(),
        image_acts=floats[:captions],
        text_acts=floats[:captions],
        background=apart,
        background_acts=PairedActs(ids, floats[captions:], floats[captions:]),
        background_codes=PairedCodes(ids, codes, codes),
    )


def embedding(evidence: Evidence):  # type: ignore[no-untyped-def]
    """Return a function that embeds a text as the sum of its words."""
    assert evidence.vocabulary_acts is not None
    known = dict(zip(evidence.vocabulary, evidence.vocabulary_acts, strict=True))

    def embed(texts):  # type: ignore[no-untyped-def]
        zero = torch.zeros(evidence.vocabulary_acts.shape[1])  # type: ignore[union-attr]
        return torch.stack([sum((known[w] for w in text.split() if w in known), zero) for text in texts])

    return embed


if __name__ == "__main__":
    main()
