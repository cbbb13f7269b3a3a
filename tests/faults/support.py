"""A command in a forked process that can be killed, paused, starved of disk space, or given damaged files.

Everything is imported once; a fork then takes a second. What a child may do with a folder is watched through Python's
audit hooks, so that a kill can hit any single operation on a file.
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
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "shutil.copyfile")
KILLED = (-signal.SIGKILL, -signal.SIGALRM)
TOO_LONG = 124
Watch = Callable[[str, str], None]
"""Called before every change of a file with the operation and the path."""
_WORDS = ("Expected ", "Usage:", "missing or damaged", "Interrupted")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    said: str

    @property
    def raw(self) -> bool:
        """Whether a traceback was shown, or the process ended in a way that says nothing."""
        words = any(word in self.said for word in _WORDS) and "InternalError" not in self.said
        return "Traceback (most recent call last)" in self.said or not (self.code == 0 or self.code in KILLED or words)


class Running:
    """A command in a forked process.

    Args:
        arguments: of the command.
        watch: called before every change of a file.
        setup: called in the child first.
    """

    def __init__(self, *arguments: Any, watch: Watch | None = None, setup: Callable[[], None] | None = None) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._heard, said = os.pipe()  # a pipe, because a limit on the size of files holds for a file of output too
        self._output = b""
        self._child = os.fork()
        if self._child == 0:
            os.close(self._heard)
            _child(arguments, said, watch, setup)
        os.close(said)
        os.set_blocking(self._heard, False)

    def paused(self, seconds: float = 60) -> bool:
        """Wait until the command stops itself; False where it ended before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._listen()
            changed, status = os.waitpid(self._child, os.WNOHANG | os.WUNTRACED)
            if changed:
                self._status = status
                return os.WIFSTOPPED(status)
            time.sleep(0.003)
        return False

    def go_on(self) -> None:
        """Let a paused command go on."""
        os.kill(self._child, signal.SIGCONT)

    def end(self, seconds: float = 120) -> Ended:
        """Wait until the command has ended."""
        until, code = time.monotonic() + seconds, None
        while code is None:
            time.sleep(0.003)
            ended, status = os.waitpid(self._child, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
            self._listen()
            if code is None and time.monotonic() > until:
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
                code = TOO_LONG
        os.close(self._heard)
        return Ended(code, self._output.decode(errors="replace"))

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while part := os.read(self._heard, 2**16):
                self._output += part


def cliplens(
    *arguments: Any, watch: Watch | None = None, setup: Callable[[], None] | None = None, seconds: float = 120
) -> Ended:
    """Run the command line in a forked process."""
    return Running(*arguments, watch=watch, setup=setup).end(seconds)


def warm() -> None:
    """Import what a command needs, once, before the first fork."""
    import torch

    torch.set_num_threads(1)
    import cliplens.run
    from cliplens import registry
    from cliplens.contracts import CONTRACTS

    for group in (*CONTRACTS, "commands"):
        for plugin in registry.plugins(group):
            try:
                plugin.load()
            except Exception as error:
                print(f"{plugin.name}: {error}", file=sys.stderr)  # noqa: T201
    _ = cliplens.run.run


def _child(arguments: Sequence[Any], said: int, watch: Watch | None, setup: Callable[[], None] | None) -> None:
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8", line_buffering=True)
        os.environ["COLUMNS"] = "400"
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
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
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
            watch(event, str(given[1] if event in ("os.rename", "shutil.copyfile") else given[0]))

    return hook


def at_change(folder: Path, number: int, act: Callable[[str], None]) -> Watch:
    """Call `act` with the path at the number-th change inside a folder, counted from 0."""
    seen = [0]
    root = f"{folder}{os.sep}"

    def watch(event: str, path: str) -> None:
        if not f"{path}{os.sep}".startswith(root):
            return
        seen[0] += 1
        if seen[0] == number + 1:
            act(path)

    return watch


def counted(folder: Path, ledger: Path) -> Watch:
    """Write each change inside a folder as a line of a ledger."""
    root = f"{folder}{os.sep}"

    def watch(event: str, path: str) -> None:
        if f"{path}{os.sep}".startswith(root):
            descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{event} {path}\n".encode())
            os.close(descriptor)

    return watch


def kill_now(_: str) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def pause_now(_: str) -> None:
    """Stop this process until it is told to go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def ask_to_end(_: str) -> None:
    """Send SIGTERM to this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def content(folder: Path) -> dict[str, str]:
    """File -> hash. Times are left out, and hidden files do not count."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not any(part.startswith(".") for part in Path(name).parts):
            found[name] = hashlib.sha256(_without_times(path)).hexdigest()
    return found


def _without_times(path: Path) -> bytes:
    if path.name == "report.html":
        return b"there"
    data = path.read_bytes()
    if path.name == "summary.json":
        held = json.loads(data)
        held.pop("seconds", None)
        return json.dumps(held, sort_keys=True).encode()
    if path.name == "steps.json":
        held = json.loads(data)["records"]
        return json.dumps({n: [r["options"], sorted(r["outputs"])] for n, r in held.items()}, sort_keys=True).encode()
    return data


def damaged(data: bytes, kind: str, seed: int) -> bytes:
    """Content as a bad disk leaves it: one bit flipped, the end cut off, zeros, nothing, or something behind it."""
    if kind == "flip" and data:
        at = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:6], "big") % (8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ (1 << at % 8)]) + data[at // 8 + 1 :]
    other = {"cut": data[: len(data) * 6 // 10], "zeros": bytes(len(data)), "empty": b"", "longer": data + b"\0" * 16}
    return other.get(kind, data)
