"""Does a model get better when pairs are mended as advised, more than when they are mended in other ways?

    python benchmarks/advice_proof.py                                                     # short: about ten CPU minutes
    python benchmarks/advice_proof.py --long                                              # an hour and a half
    python benchmarks/advice_proof.py --adviser own --shares 0.25 0.1 --seeds 5           # advice by the faulty model
    python benchmarks/advice_proof.py --scratch --shares 0.25 --seeds 5 --ways "as advised" exchanged "random, both"
    python benchmarks/advice_proof.py --minutes 2                                         # a part; again for the rest

4096 pairs of the world with two planted faults: 60 % of the captions about four colours lack the colour or name another
one (30 % of all captions), and three shapes have a tenth of their usual share. A small CLIP is trained on them
(`_advice/training.py` has the recipe). Then 1, 5, 10 or 25 % of the pairs are mended: captions are rewritten, or new
pairs are collected from 4096 others; as `cliplens advise` advises per concept (half of the budget for each action),
with the two actions exchanged, at random, or by the rankings of others. The model is trained again on the mended pairs,
for 60 steps from where it was (`--scratch`: 300 steps from the start), and tested on 1024 pairs without faults that
nothing else has seen. The control is the same training without mending; the gain over it is paired by seed. `--adviser
world` is the embedded model, trained on other pairs; `own` is the model that was trained on the faulty pairs. Advice
may not name enough pairs to spend the budget: "random, as many as advised" mends as many of both kinds. `--adviser own`
and `--scratch` write result files of their own, such as advice_proof-own.json.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

import cliplens
from _advice.choosing import Spent, advised, arms
from _advice.planted import RARE_SHAPES, WRONG_COLOURS, clean, faulty
from _advice.training import AGAIN, SCRATCH, Tested, small_model, tested, trained
from _bench import Bench, bench, mean
from cliplens.statistics import auroc
from cliplens.world import FACTORS
from cliplens_hooks.models.open_clip import preprocess_of
from cliplens_hooks.models.world import PREPROCESS, world_tokenizer

PAIRS, TEST, TARGET = 4096, 1024, 1024
SHORT, LONG = (0.25, 0.05), (0.25, 0.1, 0.05, 0.01)
SHORT_ARMS = ("as advised", "exchanged", "random, as many as advised", "random, both", "random, collect")
SHORT_ARMS += ("lowest CLIP score, rewrite", "latents and CLIP score, rewrite", "highest loss, rewrite", "SDM, collect")
UNMENDED = "not mended"


def main(b: Bench) -> None:
    """Do what is left to do of the trainings; print the tables where nothing is."""
    shares = b.args.shares if b.args.shares != [0.0] else LONG if b.args.long else SHORT
    seeds = range(b.args.seeds or (5 if b.args.long else 3))
    for name in [b.args.adviser] * (b.args.adviser != "world") + ["scratch"] * b.args.scratch:
        b.variant(name)
    keep = Path(b.args.keep) / b.args.adviser
    keep.mkdir(parents=True, exist_ok=True)
    left = Left(keep / f"results{'-scratch' if b.args.scratch else ''}.json", b.args.minutes)
    plans = []
    for seed in seeds:
        if not (keep / f"{seed}.json").exists():
            if left.over():
                return left.stop()
            prepare(keep, seed, adviser=b.args.adviser, minutes=left)
        plans.append(json.loads((keep / f"{seed}.json").read_text()))
    names = b.args.ways or (list(plans[0]["spent"]) if b.args.long else list(SHORT_ARMS))
    wanted = [(s, UNMENDED, 0.0) for s in seeds] + [(s, n, share) for share in shares for s in seeds for n in names]
    for seed, name, share in wanted:
        if left.done(seed, name, share):
            continue
        if left.over():
            return left.stop()
        spent = Spent(**plans[seed]["spent"][name][f"{share:g}"]) if share else Spent([], [])
        left.add(seed, name, share, again(keep, seed, spent, scratch=b.args.scratch))
    after = [left.result(s, UNMENDED, 0.0) for s in seeds]
    gains = {(n, share): [left.result(s, n, share) for s in seeds] for n in names for share in shares}
    show(b, plans, after, gains)
    b.note("trainings again", len(wanted))
    b.note("CPU minutes", round(left.seconds() / 60, 1))
    return None


class Left:
    """The trainings that are finished, in a file, and the minutes of this call."""

    def __init__(self, path: Path, minutes: float) -> None:
        self._path, self._minutes, self._started = path, minutes, time.process_time()
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {"seconds": 0.0}
        self._before = float(self._found["seconds"])

    def seconds(self) -> float:
        """Return the CPU seconds of all calls."""
        return self._before + time.process_time() - self._started

    def over(self) -> bool:
        """Return whether the minutes of this call are over."""
        return bool(self._minutes) and time.process_time() - self._started > 60 * self._minutes

    def stop(self) -> None:
        """Say that there is more to do."""
        self.save()
        raise SystemExit(f"{len(self._found) - 1} trainings are done. Run the same command again to do the others.")

    def done(self, seed: int, name: str, share: float) -> bool:
        """Return whether a training is finished."""
        return f"{seed} {name} {share:g}" in self._found

    def result(self, seed: int, name: str, share: float) -> Tested:
        """Return the result of a training."""
        return Tested(**self._found[f"{seed} {name} {share:g}"])

    def add(self, seed: int, name: str, share: float, result: Tested) -> None:
        """Keep a result."""
        self._found[f"{seed} {name} {share:g}"] = asdict(result)
        self.save()
        print(f"seed {seed}, {name}, {share:.0%}: {result}", flush=True)

    def save(self) -> None:
        """Write the file."""
        self._path.write_text(json.dumps({**self._found, "seconds": self.seconds()}, indent=1))


def prepare(keep: Path, seed: int, *, adviser: str, minutes: Left) -> None:
    """Train on the faulty pairs and make the advice. Both are kept; the model is kept first."""
    corpus, pool = faulty(PAIRS, seed=seed), clean(PAIRS, seed=seed, part=1)
    target, test = (clean(n, seed=seed, part=part) for n, part in ((TARGET, 2), (TEST, 3)))
    weights = keep.parent / f"{seed}.safetensors"
    if not weights.exists():
        save_file(trained(corpus, SCRATCH, seed=seed).state_dict(), weights)
        if minutes.over():
            minutes.stop()
    model = _model(weights)
    clip = cliplens.load("world") if adviser == "world" else _wrapped(model)
    given = advised(clip, model, corpus, pool, target)
    scores = {**given.seen.rankings, "high loss": given.loss}
    plan = {
        "start": asdict(tested(model, test)),
        "found": {name: _found(score, corpus.wrong) for name, score in scores.items()},
        "advice": [(c.decision, _value(given.of_target[:, c.latent], target.scenes)) for c in given.concepts],
        "spent": {
            name: {f"{share:g}": asdict(way(round(share * PAIRS))) for share in LONG}
            for name, way in arms(given, seed=seed).items()
        },
    }
    (keep / f"{seed}.json").write_text(json.dumps(plan))


def again(keep: Path, seed: int, spent: Spent, *, scratch: bool) -> Tested:
    """Train again on the mended pairs, and test."""
    mended = spent.apply(faulty(PAIRS, seed=seed), clean(PAIRS, seed=seed, part=1))
    start = None if scratch else _model(keep.parent / f"{seed}.safetensors")
    model = trained(mended, SCRATCH if scratch else AGAIN, seed=100 + seed, start=start)
    return tested(model, clean(TEST, seed=seed, part=3))


def _model(weights: Path):  # type: ignore[no-untyped-def]
    model = small_model(0)
    model.load_state_dict(load_file(weights))
    return model.eval()


def show(b: Bench, plans, after, gains) -> None:  # type: ignore[no-untyped-def]
    """Print the tables."""
    seeds, starts = range(len(plans)), [Tested(**plan["start"]) for plan in plans]
    found, advice = [plan["found"] for plan in plans], [plan["advice"] for plan in plans]
    b.note("seeds", len(starts))
    b.table("Before mending", {"model": "", "R@1 among 1024": ".3f", "loss, nats": ".3f"})
    for name, those in (("trained on the faulty pairs", starts), ("trained again, not mended", after)):
        b.row(name, mean([t.recall for t in those]), mean([t.loss for t in those]))
    b.table("Faulty captions found", {"ranking": "", "AUROC": ".3f", "faulty in the worst tenth": ".3f"})
    for name in found[0]:
        b.row(name, *(mean([found[s][name][part] for s in seeds]) for part in (0, 1)))
    b.table("Decisions on concepts", ["decision", "concept", "fault planted", "latents in all seeds"])
    said = [pair for each in advice for pair in map(tuple, each)]
    for decision, value in sorted(set(said)):
        planted = "captions" if value in WRONG_COLOURS else "rare" if value in RARE_SHAPES else "none"
        b.row(decision, value, planted, said.count((decision, value)))
    show_spent(b, plans, gains)
    b.table(
        "Gain over the same training without mending", {"mended": "", "pairs": ".0%", "R@1": "+.3f", "loss": "+.3f"}
    )
    for (name, share), those in gains.items():
        b.row(name, share, *_paired(those, after))
    b.table(
        "Gain beyond the way named, paired by seed",
        {"as advised against": "", "pairs": ".0%", "R@1": "+.3f", "loss": "+.3f"},
    )
    for (name, share), those in gains.items():
        if name != "as advised":
            b.row(name, share, *_paired(gains["as advised", share], those))
    b.table("Mean gain of R@1 over all budgets", {"mended": "", "R@1": "+.3f"})
    for name in dict.fromkeys(name for name, _ in gains):
        every = [g for (n, _), g in gains.items() if n == name]
        b.row(name, mean([float(np.mean([g[s].recall - after[s].recall for g in every])) for s in seeds]))


def show_spent(b: Bench, plans, gains) -> None:  # type: ignore[no-untyped-def]
    """Print how many pairs each way mends: advice may name fewer than the budget."""
    b.table("Pairs mended", {"mended": "", "pairs": ".0%", "captions rewritten": ".0f", "pairs collected": ".0f"})
    for name, share in gains:
        spent = [Spent(**plan["spent"][name][f"{share:g}"]) for plan in plans]
        b.row(name, share, mean([float(len(s.rewritten)) for s in spent]), mean([float(len(s.taken)) for s in spent]))


def _paired(those: list[Tested], others: list[Tested]):  # type: ignore[no-untyped-def]
    both = list(zip(those, others, strict=True))
    return mean([a.recall - b.recall for a, b in both]), mean([b.loss - a.loss for a, b in both])


def _found(score: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    worst = np.argsort(-score, kind="stable")[: len(score) // 10]
    return auroc(score[wrong], score[~wrong]), float(wrong[worst].mean())


def _value(codes: np.ndarray, scenes) -> str:  # type: ignore[no-untyped-def]
    """Return the value of a shared factor with which a latent correlates best on pictures."""
    values = [(f.name, n, v) for f in FACTORS.values() if f.sharing == "shared" for n, v in enumerate(f.values)]
    if not codes.any():
        return "silent"
    return max(values, key=lambda x: float(np.corrcoef(codes, scenes[x[0]] == x[1])[0, 1]))[2]


def _wrapped(model):  # type: ignore[no-untyped-def]
    config = {"size": (PREPROCESS.side, PREPROCESS.side), "mean": list(PREPROCESS.mean), "std": list(PREPROCESS.std)}
    how = {**config, "interpolation": "bicubic", "resize_mode": "shortest"}
    return cliplens.wrap(model, preprocess=preprocess_of(how), tokenizer=world_tokenizer())


if __name__ == "__main__":
    with bench(
        __file__,
        __doc__,
        adviser="world",
        seeds=(0, "0 takes 3, or 5 with --long"),
        shares=[0.0],
        ways=([], "ways to mend; default: nine, and all with --long"),
        long=False,
        scratch=False,
        keep=(".cache/advice_proof", "folder of finished trainings"),
        minutes=(0.0, "CPU minutes after which this call stops; run it again for the rest; 0: no limit"),
    ) as found:
        main(found)
