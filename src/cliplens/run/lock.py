"""Lock a run folder, so that only one process works in it. The lock ends with its process."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cliplens.errors import MachineError
from cliplens.files import make_folder

_LOCK, _HOLDER = ".lock", ".lock-holder"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. The folder is created if missing, and removed again if it stays empty.

    Raises:
        MachineError: another process holds the lock; the message names its host, id and start time.
    """
    new = not folder.exists()
    make_folder(folder)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MachineError(
            expected=f"{folder} to be unused",
            found=_holder(folder),
            fix="wait until that process ends, or choose another --out",
        ) from None
    try:
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        (folder / _HOLDER).write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        for name in (_HOLDER, _LOCK):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            if new:
                folder.rmdir()  # fails on purpose if something was written


def _holder(folder: Path) -> str:
    try:
        held = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']} working in it since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process working in it"
