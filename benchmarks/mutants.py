"""Would the tests notice? Single changes of the source, each run against the tests that execute the changed line.

    python benchmarks/mutants.py [--mutants 600] [--folders statistics tally] [--seed 0] [--budget 20]
    python benchmarks/mutants.py --mutants 0              every mutant there is: hours
    python benchmarks/mutants.py --only RESULT.json       the survivors of an earlier run alone
    python benchmarks/mutants.py --named                  the changes listed in _mutants/named.py instead
    python benchmarks/mutants.py --keep FOLDER --minutes 5    run again to go on where it stopped, on the same source

A seeded sample is drawn from each folder in proportion to its number of mutants. A mutant is noticed when a test fails
or does not end in time. Shape checks are off, tests marked `slow` are not run, and at most `--budget` CPU seconds of
tests are run on a mutant, so the score is a lower bound. Code that runs at import is not changed, nor are messages,
progress bars, descriptions of columns and the sizes of caches in memory. Survivors are listed with the reason where it
is known (_mutants/reasons.json).
"""

import json
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from _bench import Bench, Estimate, bench
from _mutants.named import NAMED, Named
from _mutants.operators import Mutant, functions_of, mutants_of
from _mutants.runner import FAILED, KILLED, NOT_COVERED, OPTIONS, SURVIVED, TIMEOUT, Runner
from cliplens.statistics import wilson_interval

ROOT = Path(__file__).parents[1]
REASONS = Path(__file__).parent / "_mutants" / "reasons.json"
SOURCE, PLUGINS = "src/cliplens", "plugins/cliplens_plugins"
FOLDERS = {
    "statistics": f"{SOURCE}/statistics",
    "tally": f"{SOURCE}/tally",
    "sae": f"{SOURCE}/sae",
    "edits": f"{SOURCE}/edits",
    "stream": f"{SOURCE}/stream",
    "store": f"{SOURCE}/store",
    "modality": f"{PLUGINS}/modality",
    "monosemanticity": f"{PLUGINS}/monosemanticity",
    "fidelity": f"{PLUGINS}/fidelity",
}
TESTS = (
    "tests/golden",
    *(f"tests/src/{name}" for name in ("edits", "sae", "store")),
    *(f"tests/plugins/{name}" for name in ("fidelity", "modality", "monosemanticity")),
    *(
        f"tests/src/test_{name}.py"
        for name in ("controls", "keys", "records", "statistics", "stream", "tally", "targets", "tasks", "units")
    ),
    "tests/src/test_run_embeddings.py",
    "tests/plugins/steering/test_clip.py",
)


def main() -> None:
    """Run the sample, or the named changes, and print the table."""
    os.chdir(ROOT)
    settings.register_profile("mutants", database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")
    options = {"mutants": 600, "seed": 0, "budget": 20.0, "folders": list(FOLDERS), "named": False}
    options |= {"minutes": (0.0, "stop after so many; 0: never"), "only": (None, "a result file: only its survivors")}
    options |= {"keep": (None, "folder in which traces and outcomes are kept, so that a run that stopped goes on")}
    begun = time.monotonic()
    with bench(__file__, __doc__, **options) as b:
        b.args.until = begun + 60 * b.args.minutes if b.args.minutes else math.inf
        b.args.keep = None if b.args.keep is None else Path(b.args.keep)
        if b.args.named:
            with_tests(
                b,
                [ROOT / n.path for n in NAMED],
                lambda r: named(b, r),
                {t for n in NAMED for t in n.tests},
            )
        else:
            files = {name: files_of(name) for name in b.args.folders}
            watched = [path for paths in files.values() for path in paths]
            totals, chosen = drawn(files, b.args.mutants, b.args.seed)  # before the tests are collected: it may fail
            with_tests(b, watched, lambda r: sampled(b, r, totals, chosen), TESTS)


def files_of(folder: str) -> list[Path]:
    """Return the source files of a folder."""
    path = ROOT / FOLDERS[folder]
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def with_tests(b: Bench, watched: Sequence[Path], work: Callable[[Runner], None], tests: object) -> None:
    """Collect tests and hand them over."""
    kept = None
    if b.args.keep is not None:
        b.args.keep.mkdir(parents=True, exist_ok=True)
        kept = b.args.keep / "traces.pickle"
    runner = Runner(watched, b.args.budget, work, kept, b.args.until)
    status = pytest.main([*OPTIONS, "-o", "addopts=", "-m", "not slow", *sorted(tests)], plugins=[runner])  # type: ignore[call-overload]
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {status!r}")


def drawn(files: dict[str, list[Path]], count: int, seed: int) -> tuple[dict[str, int], list[tuple[str, Mutant]]]:
    """Return how many mutants each folder has, and those drawn with their folder, in random order; 0 draws all."""
    every = {name: [m for path in paths for m in mutants_of(path)] for name, paths in files.items()}
    total = sum(len(mutants) for mutants in every.values())
    found = []
    for name, mutants in every.items():
        share = round(count * len(mutants) / total) if count else len(mutants)
        order = random.Random(f"{seed} {name}").sample(mutants, len(mutants))
        found += [(name, mutant) for mutant in order[: max(1, share)]]
    random.Random(seed).shuffle(found)
    return {name: len(mutants) for name, mutants in every.items()}, found


def sampled(b: Bench, runner: Runner, totals: dict[str, int], chosen: list[tuple[str, Mutant]]) -> None:
    """Print a row per folder, and the survivors."""
    reasons = json.loads(REASONS.read_text())
    if b.args.only is not None:
        wanted = {row["change"] for row in json.loads(Path(b.args.only).read_text())["data"]["survivors"]}
        chosen = [(name, m) for name, m in chosen if m.key in wanted]
    outcomes, survivors = defaultdict(list), []
    file = None if b.args.keep is None else b.args.keep / "outcomes.jsonl"
    held = dict(map(json.loads, file.read_text().splitlines())) if file and file.exists() else {}
    for done, (name, mutant) in enumerate(chosen):
        of = f"{mutant.key} at {mutant.line}, {mutant.number}"
        if of not in held:
            if time.monotonic() > b.args.until:
                b.note("stopped after the time given; mutants drawn and not run", len(chosen) - done)
                break
            code = {(mutant.function, mutant.first_line): mutant.code()}
            held[of], _ = runner.outcome(mutant.path, [mutant.line], code)
            if file:
                with file.open("a") as lines:
                    lines.write(json.dumps([of, held[of]]) + "\n")
        outcome = held[of]
        if outcome == FAILED:
            continue
        outcomes[name].append(outcome)
        if outcome in (SURVIVED, NOT_COVERED):
            where = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
            row = {"where": where, "change": mutant.key, "outcome": outcome, "reason": reasons.get(mutant.key)}
            survivors.append(row)
            print(f"{done + 1}/{len(chosen)} {outcome}: {where} {mutant.key}", flush=True)
    heads = ("folder", "mutants", "run", "noticed", "survived", "not covered")
    b.table("Mutants noticed", {**dict.fromkeys(heads, ""), "score": ".3f"})
    for name, total in totals.items():
        b.row(name, total, *_counts(outcomes[name]))
    every = [outcome for of_folder in outcomes.values() for outcome in of_folder]
    b.row("all", sum(totals.values()), *_counts(every))
    b.keep("survivors", survivors)


def _counts(outcomes: Sequence[str]) -> tuple[int, int, int, int, Estimate]:
    noticed = sum(o in (KILLED, TIMEOUT) for o in outcomes)
    survived, unseen = outcomes.count(SURVIVED), outcomes.count(NOT_COVERED)
    return len(outcomes), noticed, survived, unseen, score(noticed, len(outcomes))


def named(b: Bench, runner: Runner) -> None:
    """Print a row per named change."""
    b.table("Named changes", {"change": "", "file": "", "outcome": "", "noticed by": ""})
    for change in NAMED:
        b.row(change.what, change.path, *outcome_of(change, runner))


def outcome_of(change: Named, runner: Runner) -> tuple[str, str]:
    """Return what became of a named change, and the test that noticed it."""
    path = ROOT / change.path
    source = path.read_text()
    start = source.index(change.old)
    lines = range(source.count("\n", 0, start) + 1, source.count("\n", 0, start + len(change.old)) + 2)
    before, after = (
        functions_of(compile(text, str(path), "exec", dont_inherit=True))
        for text in (source, source.replace(change.old, change.new))
    )
    changed = {place: code for place, code in after.items() if before.get(place) != code}
    return runner.outcome(path, list(lines), changed)


def score(noticed: int, total: int) -> Estimate:
    """Return the share noticed with its Wilson interval."""
    share = noticed / total if total else float("nan")
    return Estimate(share, *(float(x) for x in wilson_interval(share, total)))


if __name__ == "__main__":
    main()
