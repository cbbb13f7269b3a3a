"""Does the name of a latent match the value that it encodes? All namers on real drawings, the second embedded model.

    CLIPLENS_DATA=FOLDER python benchmarks/naming_drawings.py [--seeds 0 1 2]

As `naming.py`, on emoji by three artists with English names. For each seed, a dictionary is trained on half of the
drawings. The other half is used for scores and names, so that even single professions have enough rows. A latent is
labelled as on the world: by the group, subgroup, gender, skin tone, profession or artist with which its activation
correlates best, on half of these drawings (none below .35). "none" and "default" are no values: no person is drawn, or
no tone is chosen.

The names of the emoji are given, not designed. So the right words of a value come from the data: all words whose
presence in a caption correlates with the value by at least .35, as a label needs. `flag` is right for flags, and
`Germany` is not. Function words never are. On the world, this rule gives the words that `naming.py` takes as right.
Three kinds of values:

- shared, and some word is right,
- shared, and no word is right, as for mammals: each has a word of its own, and none is said of enough of them,
- of the image alone: the artist. No caption says it; the correct answer is no name.

One model, whose training saw most of these drawings: intervals are over latents.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from _bench import Bench, bench
from _naming.counts import NAMERS, Answer, Counted, count, finished
from _naming.tables import every_band, share, show, show_names
from cliplens.naming import function_words, words
from cliplens.pairs.emoji import emoji_truth, read_emoji
from cliplens.records import GroundTruth, LatentTable
from cliplens.run import run
from cliplens.settings import Settings

SAID, UNSAID, IMAGE = "shared, a word says it", "shared, no word says it", "image only"
RIGHT, UNNAMED = 0, 1
COLUMNS = (
    ("right", "final", SAID, RIGHT),
    ("right, names shuffled", "final, shuffled", SAID, RIGHT),
    ("right, from images", "images", SAID, RIGHT),
    ("unnamed, a word says it", "final", SAID, UNNAMED),
    ("unnamed, no word says it", "final", UNSAID, UNNAMED),
    ("unnamed, artist", "final", IMAGE, UNNAMED),
)
"""Head, source of the names, kind of the values, and which of the counts."""
NO_VALUE = ("none", "default")
LEAST = 0.35
"""Least correlation of a word with a value: that of a label."""


def right_words(captions: Sequence[str], truth: GroundTruth, *, least: float = LEAST) -> dict[str, frozenset[str]]:
    """Return the words whose presence in captions goes with each value of the truth, as `factor=value`.

    Args:
        captions: caption of each pair, in the order of the truth.
        truth: factors of the pairs.
        least: minimum correlation of the presence of a word with that of the value.
    """
    spoken = [frozenset(words(caption)) for caption in captions]
    place = {word: n for n, word in enumerate(sorted(frozenset().union(*spoken)))}
    held = np.zeros((len(spoken), len(place)), dtype=np.float32)
    for row, said in enumerate(spoken):
        held[row, [place[word] for word in said]] = 1
    held = (held - held.mean(0)) / np.maximum(held.std(0), 1e-9)
    vocabulary = np.array(list(place))
    content = np.array([word not in function_words() for word in place])
    found = {}
    for factor, column in truth.factors.items():
        for n, value in enumerate(truth.values[factor]):
            has = (column == n).astype(np.float32)
            together = held.T @ (has - has.mean()) / (len(has) * max(float(has.std()), 1e-9))
            found[f"{factor}={value}"] = frozenset(vocabulary[(together >= least) & content].tolist())
    return found


def answers(table: LatentTable, right: Mapping[str, frozenset[str]]) -> list[Answer | None]:
    """Return the right name of each latent; None for latents without a label, or whose label is no value."""
    found: list[Answer | None] = []
    for truth, modality, correlation in zip(
        table["truth"], table["truth_modality"], table["truth_correlation"], strict=True
    ):
        if not truth or str(truth).partition("=")[2] in NO_VALUE:
            found.append(None)
            continue
        accepted = frozenset() if str(modality) == "ImgD" else right[str(truth)]
        kind = IMAGE if str(modality) == "ImgD" else SAID if accepted else UNSAID
        found.append(Answer(kind, accepted, float(correlation)))
    return found


def show_final(b: Bench, counted: Counted) -> None:
    """Print the shares of right final names."""
    b.table(
        "Final names on real drawings: share of latents, 95 % interval (Wilson)",
        ["namer", *(head for head, *_ in COLUMNS)],
    )
    for namer in NAMERS:
        counts = [(every_band(counted, namer.name, source, kind), which) for _, source, kind, which in COLUMNS]
        b.row(f"`{namer.name}`", *(share(found[which], found[2]) for found, which in counts))


def main() -> None:
    with bench(__file__, __doc__, artists="all", limit=(0, "emoji per artist; 0: all"), seeds=[0, 1, 2]) as b:
        source = f"emoji:{b.args.artists}" + (f"?limit={b.args.limit}" if b.args.limit else "")
        right = right_words([str(text) for text in read_emoji(source).captions], emoji_truth(source))
        counted, living, labels = Counted(), 0, []
        for seed in b.args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                settings = Settings(model="emoji", pairs=source, held_out=0.5, seed=seed)
                context, evidence, table = finished(run(settings, Path(folder) / "run"))
                found = answers(table, right)
                count((context, evidence), found, counted, seed=seed)
                living += int(evidence.alive.sum())
                labels += [str(t) for t, a in zip(table["truth"], found, strict=True) if a]
        b.note("dictionaries", len(b.args.seeds))
        b.note("living latents", living)
        b.note("latents with a label", len(labels))
        show_final(b, counted)
        show(b, counted, (SAID, UNSAID, IMAGE))
        show_names(b, counted.named)
        b.keep("right words", {label: sorted(right[label]) for label in sorted(set(labels))})
        b.keep("labels", {label: labels.count(label) for label in sorted(set(labels))})


if __name__ == "__main__":
    main()
