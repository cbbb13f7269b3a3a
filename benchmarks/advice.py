"""Do latents find captions that were spoiled by rule, better than CLIP score and an SAE-V-type score do?

    cliplens demo --out cliplens-demo
    python benchmarks/advice.py --run cliplens-demo

Deletes or replaces the word for colour, size or fill in a tenth of the captions of 800 scored pairs, and prints the
AUROC of each score at finding these captions, beside that of a dictionary that was never trained. Intervals are from
the sample sizes; one dictionary, so they do not cover others.
"""

from _bench import Bench, bench
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens.studies import twin_of
from cliplens_plugins.advice.of_run import ACTS, known_answer

SCORES = ("misses", "contradicts", "misses + contradicts", "low CLIP score", "latents and CLIP score")
OTHERS = ("low SAE-V score", "low SDM value")


def main(b: Bench) -> None:
    """Print a row per kind of spoiled caption and dictionary."""
    opened = OpenedRun(RunFolder.open(b.args.run))
    sample = opened.sample(b.args.pairs)
    twin, _ = twin_of(opened.dictionary, opened.scored_acts(ACTS))
    given = (sample.ids, sample.captions, sample.images)
    b.table("AUROC of finding spoiled captions", ["spoiled", "captions", "dictionary", *SCORES, *OTHERS])
    for name, dictionary in {"trained": opened.dictionary, "never trained": twin}.items():
        for row in known_answer(opened.clip, dictionary, *given):
            b.row(row["spoiled"], row["captions"], name, *(row[score] for score in (*SCORES, *OTHERS)))


if __name__ == "__main__":
    with bench(__file__, __doc__, run="cliplens-demo", pairs=800) as found:
        main(found)
