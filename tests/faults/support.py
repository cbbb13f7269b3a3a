"""A run in a forked process that can be killed, starved of disk space, or given damaged files.

Everything is imported once; a fork then takes a second. What a child may do with a run folder is watched through
Python's audit hooks, so that a kill can hit any single operation on a file.
"""

import hashlib
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL = ("--model", "world", "--d-sae", "32", "--k", "4", "--samples", "2048", "--batch-size", "128")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
Watch = Callable[[str, str], None]
"""Called before every change of a file with the operation and the path."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    said: str

    @property
    def raw(self) -> bool:
        """Whether a traceback was shown, or the process ended in a way that says nothing."""
        words = "Expected " in self.said or "Usage:" in self.said or "missing or damaged" in self.said
        killed = self.code in (-signal.SIGKILL, 124)
        return "Traceback (most recent call last)" in self.said or (self.code != 0 and not killed and not words)


def cliplens(
    *arguments: Any, watch: Watch | None = None, setup: Callable[[], None] | None = None, seconds: float = 300
) -> Ended:
    """Run the command line in a forked process."""
    sys.stdout.flush()
    sys.stderr.flush()
    heard, said = os.pipe()  # a pipe, because a limit on the size of files holds for a file of output too
    child = os.fork()
    if child == 0:
        _child(arguments, said, watch, setup)
    os.close(said)
    os.set_blocking(heard, False)
    until, code, output = time.monotonic() + seconds, None, b""
    while code is None:
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        with suppress(BlockingIOError):
            while part := os.read(heard, 2**16):
                output += part
        if code is None and time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = 124
    os.close(heard)
    return Ended(code, output.decode(errors="replace"))


def _child(arguments: Sequence[Any], said: int, watch: Watch | None, setup: Callable[[], None] | None) -> None:
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
        if setup is not None:
            setup()
        if watch is not None:
            sys.addaudithook(_hook(watch))
        sys.argv = ["cliplens", *map(str, arguments)]
        from cliplens.cli import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _hook(watch: Watch) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[0], str | os.PathLike) and (given[2] or 0) & WRITES:
            watch("open", os.fspath(given[0]))
        elif event in CHANGES:
            watch(event, str(given[1] if event == "os.rename" else given[0]))

    return hook


def counted(folder: Path, ledger: Path) -> Watch:
    """Write each change inside a folder as a line of a ledger."""

    def watch(event: str, path: str) -> None:
        if path.startswith(str(folder)):
            with open(os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", closefd=True) as file:  # noqa: PTH123
                file.write(f"{event} {path}\n")

    return watch


def killed_at(folder: Path, number: int) -> Watch:
    """Kill the process at the number-th change inside a folder, counted from 0."""
    seen = [0]

    def watch(event: str, path: str) -> None:
        if not path.startswith(str(folder)):
            return
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    return watch


def content(folder: Path) -> dict[str, str]:
    """File -> hash; times are left out, and hidden files do not count."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in Path(name).parts) or name in ("steps.json", "report.html"):
            continue
        data = path.read_bytes()
        if name == "summary.json":
            held = json.loads(data)
            held.pop("seconds", None)
            data = json.dumps(held, sort_keys=True).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """Content as a bad disk leaves it: one bit flipped, the end cut off, zeros, or nothing."""
    if kind == "flip" and data:
        at = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:6], "big") % (8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ (1 << at % 8)]) + data[at // 8 + 1 :]
    return {"cut": data[: len(data) * 6 // 10], "zeros": bytes(len(data)), "empty": b""}.get(kind, data)
