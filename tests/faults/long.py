# ruff: noqa: T201
"""The long form of the fault trials: `python -m tests.faults.long` prints the figures of docs/reliability.md.

python -m tests.faults.long --kills 300 --damages 1000 --inputs 10000 --machine 100
"""

import argparse
import errno
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.support import cliplens, content
from faults.trials import (
    KINDS,
    changes_of,
    damage,
    files_of,
    fuzz,
    kill_and_resume,
    machine_faults,
    outcome,
    refused_at,
    run_command,
)

PAIRS = "world:120"


def warm() -> None:
    """Import what a run needs, once, before the first fork."""
    import torch

    torch.set_num_threads(1)
    import cliplens.run
    from cliplens import registry

    for group in ("models", "towers", "metrics", "namers", "scorers", "judges", "reports", "commands"):
        for plugin in registry.plugins(group):
            try:
                plugin.load()
            except Exception as error:
                print(f"{plugin.name}: {error}", file=sys.stderr)
    _ = cliplens.run.run


def main() -> int:
    """Try everything, print how it ended, and return 1 where something was lost, silent or raw."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in {"kills": 300, "damages": 1000, "inputs": 10_000, "machine": 100, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    asked = parser.parse_args()
    warm()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cliplens-faults-") as held:
        place = Path(held)
        ended = {
            "kills, each resumed": kills(place, asked.kills),
            "damaged files, each verified": damages(place, asked.damages, asked.seed),
            "mutated inputs, each read": inputs(place, asked.inputs, asked.seed),
            "refusals of the machine": machine(place, asked.machine),
        }
    for what, counts in ended.items():
        print(f"{sum(counts.values()):6d} {what}: {', '.join(f'{n} {how}' for how, n in counts.most_common())}")
    print(f"{time.monotonic() - started:.0f} s")
    wrong = ("raw", "other files", "refused", "silent")
    return int(any(how.startswith(wrong) for counts in ended.values() for how in counts))


def kills(place: Path, count: int) -> Counter[str]:
    """Kill a run at changes of its folder, evenly spread over all of them, and resume it."""
    command = run_command(PAIRS, place / "whole")
    changes = changes_of(command, place / "whole", place / "ledger")
    whole = content(place / "whole")
    print(f"a run makes {len(changes)} changes of files", flush=True)
    ended = Counter[str]()
    for n in range(count):
        number = n * len(changes) // count if count < len(changes) else n % len(changes)
        how = kill_and_resume(run_command(PAIRS, place / "killed"), place / "killed", number, whole)
        ended[how] += 1
        if how not in ("same files", "not killed"):
            print(f"  {how} after a kill at {changes[number]}", flush=True)
    return ended


def damages(place: Path, count: int, seed: int) -> Counter[str]:
    """Damage a file, look whether `verify` finds it, put it back."""
    from cliplens.run import verify
    from cliplens.runfolder import RunFolder

    folder = RunFolder(place / "whole")
    files, ended = files_of(folder.path), Counter[str]()
    for n in range(count):
        path, kind = files[n % len(files)], KINDS[(n // len(files)) % len(KINDS)]
        before = path.read_bytes()
        if damage(path, kind, seed + n):
            name = path.relative_to(folder.path).as_posix()
            found = any(one.problem for one in verify(folder))
            ended["found" if found else f"silent: {name}, {kind}"] += 1
        path.write_bytes(before)
    return ended


def inputs(place: Path, count: int, seed: int) -> Counter[str]:
    """Read mutated files."""
    (place / "inputs").mkdir()
    return fuzz(place / "whole", place / "inputs", count, seed)


def machine(place: Path, count: int) -> Counter[str]:
    """Give a run a full disk, or an error of the operating system at one of its changes; then let it go on."""
    command, ended = run_command(PAIRS, place / "refused"), Counter[str]()
    codes = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT)
    limits = list(machine_faults(place).values())
    for n in range(count):
        shutil.rmtree(place / "refused", ignore_errors=True)
        if n < len(limits):
            ended[outcome(cliplens(*command, setup=limits[n]))] += 1
        else:
            watch = refused_at(place / "refused", n * 2, codes[n % len(codes)])
            ended[outcome(cliplens(*command, watch=watch))] += 1
    return ended


if __name__ == "__main__":
    sys.exit(main())
