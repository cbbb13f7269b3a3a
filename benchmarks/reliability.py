"""What kills, lost power, damaged files, refusing machines and mutated inputs do to every command.

    python benchmarks/reliability.py [--kills 320] [--errors 30] [--damages 1000] [--inputs 10000] [--seed 0]

The trials lie in `tests/faults/`, which runs a short form of them with the other tests; docs/reliability.md explains
them. Every command runs in a forked process on a run of 96 pairs. Three of four kills hit a change of a file; with
`--kills 0` every change of every command is hit. Beside `--errors` a fixed number of other faults of the machine is
tried. The script ends with 1 where work was lost, damage went unnoticed, or a raw traceback was shown.
"""

import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from _bench import Bench, bench
from faults import trials
from faults.commands import JOBS, RESULTS, RUN, TRIALS, Place
from faults.fuzzer import fuzz, limit_memory
from faults.readers import readers
from faults.support import warm

WRONG = ("raw", "other files", "refused:", "silent", "not mended", "leftovers", "ended with")
DAY = 86_400.0


def main() -> int:
    """Try everything and print how it ended; return 1 where something was lost, silent or raw."""
    warm()
    asked = {"kills": 320, "errors": 30, "damages": 1000, "inputs": 10_000, "seed": 0, "only": ""}
    with bench(__file__, __doc__, **asked) as b, tempfile.TemporaryDirectory(prefix="cliplens-faults-") as held:
        place = Place(Path(held).resolve())
        parts: dict[str, Callable[[Bench, Place], Iterator[Counter[str]]]] = {
            "kills": kills,
            "machine": machine,
            "together": together,
            "damages": damages,
            "inputs": inputs,
        }
        ended = []
        for name, part in parts.items():
            if b.args.only in name:
                ended += part(b, place)
                b.save()  # of a run that is interrupted the finished parts are kept
        wrong = sorted({how for counts in ended for how in counts if how.startswith(WRONG)})
        for how in wrong:
            print(f"WRONG {how}")
        b.note("wrong", len(wrong))
    return int(bool(wrong))


def kills(b: Bench, place: Place) -> Iterator[Counter[str]]:
    """Kill each command at its changes of files, cut the power there, kill it at random moments, ask it to end."""
    b.table("Kills, then the same command again", {"command": "", "changes of files": "d", "tried": "d", "ended": ""})
    share = 0.75 * b.args.kills / sum(len(place.whole(trial)[1]) for trial in TRIALS)
    for trial in TRIALS:
        changes = place.whole(trial)[1]
        count = max(2, round(share * len(changes))) if 0 < share < 1 else len(changes)
        chosen = spread(len(changes), count)
        yield shown(b, (trials.kill(place, trial, n) for n in chosen), trial.name, len(changes))
    b.table("Other ways to end a command", {"what": "", "command": "", "tried": "d", "ended": ""})
    for trial in JOBS[:4]:
        changes, some = place.whole(trial)[1], max(2, b.args.kills // 40)
        lost = (trials.kill(place, trial, n, power=True) for n in spread(len(changes), some))
        yield shown(b, lost, "power lost at a change of a file", trial.name)
        late = (trials.kill_after(place, trial, 0.1 + 1.2 * n / some) for n in range(some))
        yield shown(b, late, "killed at a moment", trial.name)
        asked = (trials.stop(place, trial, n) for n in spread(len(changes), max(2, some // 2)))
        yield shown(b, asked, "SIGTERM at a change of a file", trial.name)


def machine(b: Bench, place: Place) -> Iterator[Counter[str]]:
    """Full disks, errors of the operating system, clocks."""
    b.table("A machine that refuses, then the same command again", {"fault": "", "tried": "d", "ended": ""})
    per = max(1, b.args.errors // len(TRIALS))
    refused = (
        trials.refuse(place, trial, n, trials.ERRORS[(n + number) % len(trials.ERRORS)])
        for number, trial in enumerate(TRIALS)
        for n in spread(len(place.whole(trial)[1]), per)
    )
    yield shown(b, refused, "an error at one change of a file: full, read-only, permission, quota, input/output")
    full = (trials.full_disk(place, trial, limit) for trial in TRIALS for limit in trials.LIMITS)
    yield shown(b, full, "no file larger than 0 bytes to 60 kB")
    forced = (trials.refuse_force(place, trial, n, trials.ERRORS[n % 5]) for trial in TRIALS for n in (0, 7))
    yield shown(b, forced, "forcing to disk fails")
    steps = (-10 * 365 * DAY, 10 * 365 * DAY)
    # Neuronpedia's files hold the time of the run's table, which this trial sets.
    timeless = [trial for trial in TRIALS if trial.name != "export neuronpedia"]
    clock = (trials.clock_step(place, trial, 9 + 7 * n, s) for trial in timeless for n, s in enumerate(steps))
    yield shown(b, clock, "the clock is set by ten years, back or on, and files have times in between")


def together(b: Bench, place: Place) -> Iterator[Counter[str]]:
    """Two commands in one folder."""
    b.table("Two commands at once in one run folder", {"first": "", "second": "", "tried": "d", "ended": ""})
    resumed = next(trial for trial in JOBS if trial.finished)
    for first in (resumed, RESULTS[0], RESULTS[-1]):
        for second in (RUN, *RESULTS):
            changes = len(place.whole(first)[1])
            both = (trials.two_at_once(place, first, n, second) for n in (2 * changes // 3,))
            yield shown(b, both, first.name, second.name)


def damages(b: Bench, place: Place) -> Iterator[Counter[str]]:
    """Damage every file in every way; `verify` names it, and the command it prints mends it."""
    b.table("Damaged files", {"what": "", "tried": "d", "ended": ""})
    run = place.finished / "run"
    files, kinds = trials.files_of(run), trials.KINDS
    found = (
        trials.found_by_verify(run, files[n % len(files)], kinds[n // len(files) % len(kinds)], b.args.seed + n)
        for n in range(b.args.damages)
    )
    yield shown(b, (how for how in found if how != "no change"), "damaged, then `cliplens verify`")
    pictures = [p for p in files if p.suffix == ".webp"]
    others = [p for p in files if p.suffix != ".webp"] + pictures[:3]
    some = others if b.args.damages >= len(files) else others[:: max(1, len(others) // 6)]
    mended = (trials.mended(place, path, kinds[n % len(kinds)], n) for n, path in enumerate(some))
    yield shown(b, mended, "damaged, then the command that `cliplens verify` prints")


def inputs(b: Bench, place: Place) -> Iterator[Counter[str]]:
    """Mutate the input of every reader."""
    logging.disable(logging.CRITICAL)
    known = readers(place)
    limit_memory(24)
    b.table("Mutated inputs", {"reader": "", "tried": "d", "ended": ""})
    for name, counts in fuzz(known, place.path / "inputs", b.args.inputs, b.args.seed).items():
        b.row(name, sum(counts.values()), said(counts))
        yield counts


def spread(length: int, count: int) -> list[int]:
    """Some numbers below `length`, evenly spread, each once."""
    return sorted({n * length // max(count, 1) for n in range(count)})


def shown(b: Bench, outcomes: Iterable[str], *cells: object) -> Counter[str]:
    """Count how trials ended, and add the row."""
    started, counts = time.perf_counter(), Counter(outcomes)
    b.row(*cells, sum(counts.values()), said(counts))
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    return counts


def said(counts: Counter[str]) -> str:
    """The counts in words, the bad ones first."""
    order = sorted(counts.items(), key=lambda item: (not item[0].startswith(WRONG), -item[1]))
    return ", ".join(f"{number:,} {how}" for how, number in order)


if __name__ == "__main__":
    sys.exit(main())
