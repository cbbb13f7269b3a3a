"""One process at a time works on a run folder. The lock goes with its process, however that ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cliplens.errors import MachineError

_LOCK, _HOLDER = ".lock", ".lock-holder"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing and removed again if nothing was written into it.

    Raises:
        MachineError: another process holds it; names host, process and since when.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MachineError(
            expected=f"{folder} to be free", found=_holder(folder), fix="wait until it is done, or give another --out"
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
                folder.rmdir()  # fails, as it should, where something was written


def _holder(folder: Path) -> str:
    try:
        held = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {held['pid']} on {held['host']} working in it since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process working in it"
