"""Faults tried on a run: kills, damaged files, a machine that refuses, input that makes no sense."""

import errno
import hashlib
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from faults.support import SMALL, Ended, cliplens, content, counted, damaged, killed_at

KINDS = ("flip", "cut", "zeros", "empty", "gone")


def run_command(pairs: str, out: Path) -> tuple[str, ...]:
    """The main job, small."""
    return ("run", *SMALL, "--pairs", pairs, "--out", str(out))


def changes_of(command: tuple[str, ...], folder: Path, ledger: Path) -> list[str]:
    """Every change of a file that the command makes in the folder, in order."""
    ledger.unlink(missing_ok=True)
    ended = cliplens(*command, watch=counted(folder, ledger))
    assert ended.code == 0, ended.said
    return ledger.read_text().splitlines()


def kill_and_resume(command: tuple[str, ...], folder: Path, number: int, whole: dict[str, str]) -> str:
    """Kill the command at one change, resume it, and say how that ended."""
    shutil.rmtree(folder, ignore_errors=True)
    killed = cliplens(*command, watch=killed_at(folder, number))
    if killed.code != -signal.SIGKILL:
        return "not killed"
    again = cliplens(*command, "--resume")
    if again.raw:
        return "raw"
    if again.code != 0:
        return "refused"
    return "same files" if content(folder) == whole else "other files"


def damage(path: Path, kind: str, seed: int) -> bool:
    """Damage a file; False where that changes nothing."""
    before = path.read_bytes()
    if kind == "gone":
        path.unlink()
        return True
    after = damaged(before, kind, seed)
    path.write_bytes(after)
    return after != before


def machine_faults(folder: Path) -> dict[str, Callable[[], None]]:
    """Name -> what to do in the child before the command: a disk that is full after some bytes."""

    def full(limit: int) -> Callable[[], None]:
        def setup() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return setup

    return {f"files of {limit} bytes at most": full(limit) for limit in (0, 100, 1000, 5000, 20_000, 60_000)}


def refused_at(folder: Path, number: int, code: int) -> Callable[[str, str], None]:
    """Raise an error of the operating system at the number-th change inside a folder."""
    seen = [0]

    def watch(event: str, path: str) -> None:
        if path.startswith(str(folder)):
            if seen[0] == number:
                seen[0] += 1
                raise OSError(code, errno.errorcode[code], path)
            seen[0] += 1

    return watch


def outcome(ended: Ended) -> str:
    """How a command ended: well, in words, or raw."""
    return "raw" if ended.raw else "well" if ended.code == 0 else "in words"


def readers(run: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Name -> a good file, and a function that reads a file in its place."""
    from cliplens.exemplars import load_exemplars
    from cliplens.files import read_json
    from cliplens.pairs import read_pairs
    from cliplens.records import LatentTable
    from cliplens.run import OpenedRun
    from cliplens.runfolder import RunFolder
    from cliplens.store.arrow import read_table
    from cliplens.store.manifest import ShardRecord, read_plan

    def settings(path: Path) -> object:
        (path.parent / "run.toml").write_bytes(path.read_bytes())
        return OpenedRun(RunFolder(path.parent)).asked

    def manifest(path: Path) -> object:
        (path.parent / "manifest.json").write_bytes(path.read_bytes())
        return read_plan(path.parent)

    def shard(path: Path) -> object:
        (path.parent / "shards").mkdir(exist_ok=True)
        (path.parent / "shards" / "00000.json").write_bytes(path.read_bytes())
        return ShardRecord.load(path.parent, 0)

    def exemplars(path: Path) -> object:
        (path.parent / "exemplars.parquet").write_bytes(path.read_bytes())
        return load_exemplars(path.parent)

    def table(path: Path) -> object:
        return read_pairs(path, modalities="text")

    csv = run.parent / "captions.csv"
    csv.write_text("id,caption\n" + "".join(f'{n},"a red circle, number {n}"\n' for n in range(12)))
    return {
        "run.toml": (run / "run.toml", settings),
        "manifest.json": (run / "activations" / "manifest.json", manifest),
        "shard record": (run / "activations" / "shards" / "00000.json", shard),
        "shard": (next((run / "activations" / "pairs").glob("*.arrow")), read_table),
        "latents.parquet": (run / "latents.parquet", LatentTable.load),
        "exemplars.parquet": (run / "exemplars" / "exemplars.parquet", exemplars),
        "findings.json": (run / "findings.json", read_json),
        "captions.csv": (csv, table),
    }


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some bytes replaced, removed, repeated or inserted."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(5):
            case 0 if out:
                out[min(at, len(out) - 1)] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randint(1, 40)]
            case 2:
                out[at:at] = chance.choice((b"\x00", b"\xff\xfe", b"[[", b"null", b"-1", b"1e999", b'"', b"\n", b"{}"))
            case 3:
                out[at:at] = out[at : at + chance.randint(1, 80)]
            case 4:
                del out[at:]
    return bytes(out)


def fuzz(run: Path, place: Path, count: int, seed: int) -> Counter[str]:
    """Read `count` mutated files with every reader in turn; count how each reading ended."""
    from cliplens.errors import InternalError
    from cliplens.faults import in_words

    chance, ended = random.Random(seed), Counter[str]()
    known = readers(run)
    for number in range(count):
        name = list(known)[number % len(known)]
        good, read = known[name]
        path = place / f"mutated{good.suffix}"
        path.write_bytes(mutated(good.read_bytes(), chance))
        try:
            read(path)
            ended["read"] += 1
        except Exception as error:
            said = in_words(error)
            raw = f"raw: {name}: {type(error).__name__}: {error}"[:160]
            ended[raw if isinstance(said, InternalError) else "in words"] += 1
    return ended


def files_of(run: Path) -> list[Path]:
    """The files of a run that `cliplens verify` answers for."""
    return [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in ("run.toml", "steps.json")]


def sample(items: Iterable[Path], count: int, seed: int) -> list[Path]:
    """Some of them, the same ones every time."""
    ranked = sorted(items, key=lambda p: hashlib.sha256(f"{seed} {p.name}".encode()).hexdigest())
    return ranked[:count]
