"""Read and write files atomically. All files of a run are written here, so that a kill or a full disk loses nothing.

A file is written under a hidden name, flushed to disk (`fsync`) and renamed; the rename is flushed too. Readers see
either the old or the new content. Another kind of storage needs changes only in this file.
"""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cliplens.errors import CliplensError, DamagedError, InputError, MachineError
from cliplens.faults import size

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(partial|old)")


def partial_path(path: Path) -> Path:
    """Return the hidden path under which `path` is written first: `.NAME.PID.partial` in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to. The file replaces `path` when the block ends without an error, else it is deleted."""
    make_folder(path.parent)
    partial = partial_path(path)
    try:
        yield partial
        sync(partial)
        move(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill. It replaces `folder` when the block ends without an error, else it is deleted."""
    make_folder(folder.parent)
    remove_leftovers_of(folder)
    partial, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    try:
        yield partial
        for path in sorted(partial.rglob("*"), reverse=True):
            sync(path)
        sync(partial)
        if folder.exists():
            folder.rename(old)
        move(partial, folder)
        if old.exists():
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


def move(partial: Path, path: Path) -> None:
    """Rename a file or folder to its final name and flush the rename to disk."""
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to disk. On systems that cannot open folders, do nothing for a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically; nan and inf become null, as standard JSON has neither."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DamagedError: the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            expected=f"JSON in {path}",
            found=str(error),
            fix="delete the file and run the command that wrote it again",
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> tuple[str, int]:
    """Return hash and size of a file, or of a folder: of the names, contents and sizes of all files in it.

    Hidden files in a folder do not count.
    """
    if not path.is_dir():
        return sha256_of(path), path.stat().st_size
    files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")}
    lines = "".join(f"{name} {sha256_of(files[name])}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest(), sum(p.stat().st_size for p in files.values())


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, where they are missing.

    Raises:
        InputError: no folder can be created there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error


def check_room(path: Path, need: int) -> None:
    """Check that a file or folder, which may not exist yet, can be written, and that its disk has room for it.

    Args:
        path: the file or folder. Nothing is left at it.
        need: bytes to write.

    Raises:
        InputError: nothing can be written there.
        MachineError: the disk has less room.
    """
    whole = path.resolve()
    existing = whole
    while not existing.exists():
        existing = existing.parent
    try:
        tempfile.TemporaryFile(dir=whole.parent if whole.is_file() else existing).close()
    except OSError as error:
        raise _not_writable(path, error) from error
    free = shutil.disk_usage(existing).free
    if need > free:
        raise MachineError(
            expected=f"room for {size(need)} at {path}",
            found=f"{size(free)} free",
            fix="free disk space, or choose another folder",
        )


def _not_writable(path: Path, error: OSError) -> CliplensError:
    if error.errno == errno.ENOSPC:
        return MachineError(expected=f"room on the disk for {path}", found=str(error.strerror), fix="free some space")
    return InputError(
        expected=f"a place that can be written at {path}",
        found=f"{error.strerror or error}",
        fix="choose another folder, or change its permissions",
    )


def remove_leftovers(folder: Path) -> None:
    """Remove partial files and folders of processes that ended, anywhere in `folder`.

    If a process ended after moving a folder aside and before replacing it, the old folder is moved back.
    """
    _remove_leftovers(folder.rglob(".*"))


def remove_leftovers_of(path: Path) -> None:
    """Remove what dead processes left of one file or folder beside it."""
    _remove_leftovers(path.parent.glob(f".{glob.escape(path.name)}.*"))


def _remove_leftovers(hidden: Iterable[Path]) -> None:
    for path in sorted(hidden, reverse=True):
        found = _PARTIAL.fullmatch(path.name)
        if found is None or _alive(int(found["pid"])):
            continue
        home = path.with_name(found["name"])
        if path.name.endswith(".old") and not home.exists():
            path.rename(home)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    if os.name == "nt":  # signal 0 would end the process there
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): _plain(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(v) for v in content]
    if hasattr(content, "tolist"):
        return _plain(content.tolist())
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return str(content) if isinstance(content, Path) else content
