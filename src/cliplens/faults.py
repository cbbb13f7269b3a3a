"""Translate exceptions of the machine into errors of cliplens, for the command line.

They come from the disk, permissions, memory, devices, lost processes and damaged files. Any other exception becomes an
`InternalError`, so that no command ends with a raw traceback.
"""

import errno
import os
import re
import traceback
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from json import JSONDecodeError
from pathlib import Path
from tomllib import TOMLDecodeError

from cliplens.errors import CliplensError, DamagedError, InputError, InternalError, MachineError

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_WRONG_KIND = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
_DISK: tuple[tuple[set[int], type[CliplensError], str, str], ...] = (
    (_FORBIDDEN, MachineError, "permission to use {where}", "change its permissions, or choose another folder"),
    ({errno.ENOENT}, InputError, "the file {where}", "correct the path, or restore the file"),
    (_WRONG_KIND, InputError, "a usable path at {where}", "correct the path, or choose another folder"),
    (
        _LIMITS,
        MachineError,
        "room for another open file or process",
        "raise the limit with ulimit -n, or lower --workers",
    ),
)
"""Error numbers of the operating system, with the error class, what was expected and the fix."""
_UNREADABLE = {
    "ArrowException",
    "BadZipFile",
    "DecompressionBombError",
    "SafetensorError",
    "UnidentifiedImageError",
    "UnpicklingError",
}
_MEMORY = ("out of memory", "t allocate memory", "cannot allocate memory", "bad_alloc", "malloc of size")
_DEVICE = (
    "no cuda gpus",
    "not compiled with cuda",
    "found no nvidia",
    "cuda driver",
    "no hip gpus",
    "invalid device",
    "not linked with support for",
)
_LOST = ("dataloader worker", "process pool was terminated", "gloo", "nccl", "connection closed by peer")


class Interrupted(BaseException):
    """The process received a signal to end; `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def in_words(error: BaseException) -> CliplensError:
    """Return the error of cliplens that describes an exception in plain words.

    >>> in_words(PermissionError(13, "Permission denied", "run.toml")).expected
    'permission to use run.toml'
    """
    chain = _chain(error)
    for rule in (_own, _memory, _disk, _device, _lost, _unreadable, _libraries):
        for link in chain:
            found = rule(link)
            if found is not None:
                return found
    return _internal(error)


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error, followed by the errors that it was raised from."""
    links: list[BaseException] = []
    waiting = [error]
    while waiting and len(links) < 16:
        link = waiting.pop(0)
        links.append(link)
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        if link.__cause__ is not None:
            waiting.append(link.__cause__)
    return links


def _own(error: BaseException) -> CliplensError | None:
    return error if isinstance(error, CliplensError) else None


def _memory(error: BaseException) -> CliplensError | None:
    said = str(error).casefold()
    if not (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(m in said for m in _MEMORY)
    ):
        return None
    return MachineError(
        expected="enough memory for a batch",
        found=_short(error) or "the memory is used up",
        fix="lower --forward-batch (harvest), --batch-size (training), --d-sae or --workers, or use --dtype bfloat16",
    )


def _disk(error: BaseException) -> CliplensError | None:
    said = str(error)
    code = error.errno if isinstance(error, OSError) else None
    if code is None and ("No space left" in said or "File too large" in said):
        code = errno.ENOSPC
    if code is None and not isinstance(error, OSError):
        return None
    where = str(getattr(error, "filename2", None) or getattr(error, "filename", None) or "a file")
    what = getattr(error, "strerror", None) or _short(error)
    if code in _FULL:
        return _full(where, what)
    for codes, kind, expected, fix in _DISK:
        if code in codes:
            return kind(expected=expected.format(where=where), found=what, fix=fix)
    if isinstance(error, ConnectionError | TimeoutError):
        what = _short(error) or type(error).__name__
        return MachineError(
            expected="an answer over the network", found=what, fix="check the connection and run the command again"
        )
    return MachineError(
        expected=f"{where} to be readable and writable", found=what, fix="check the disk and run the same command again"
    )


def _full(where: str, what: str) -> CliplensError:
    from shutil import disk_usage

    folder = Path(where) if where != "a file" else Path.cwd()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = f", {size(disk_usage(folder).free)} free"
    except OSError:
        free = ""
    return MachineError(
        expected=f"room on the disk for {where}",
        found=f"{what}{free}",
        fix="free some space and run the same command again (cliplens run with --resume), or choose another folder",
    )


def _device(error: BaseException) -> CliplensError | None:
    said = str(error).casefold()
    if not (isinstance(error, RuntimeError | AssertionError) and any(m in said for m in _DEVICE)):
        return None
    return MachineError(
        expected="the requested device", found=_short(error), fix="remove --device, or pass --device cpu"
    )


def _lost(error: BaseException) -> CliplensError | None:
    said = f"{type(error).__name__} {error}".casefold()
    if not (isinstance(error, RuntimeError | EOFError | BrokenPipeError) and any(m in said for m in _LOST)):
        return None
    return MachineError(
        expected="every process of the run to stay alive",
        found=_short(error),
        fix="run the same command again with --resume; lower --workers if memory is short",
    )


def _unreadable(error: BaseException) -> CliplensError | None:
    known = isinstance(error, UnicodeDecodeError | JSONDecodeError | TOMLDecodeError | EOFError)
    names = {kind.__name__ for kind in type(error).__mro__}
    if not known and not names & _UNREADABLE:
        return None
    return DamagedError(
        expected="files that match their file type",
        found=f"{type(error).__name__}: {_short(error)}",
        fix="run cliplens verify on the run folder, or pass another file",
    )


def _libraries(error: BaseException) -> CliplensError | None:
    """torchvision of another build than torch breaks imports far away, in transformers or timm."""
    if not isinstance(error, ImportError | RuntimeError):
        return None
    fault = _short(error) if "torchvision::" in str(error) else _fault_of_torchvision(error)
    if not fault:
        return None
    held = ", ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision"))
    return MachineError(
        expected="torch and torchvision of one build",
        found=f"{held}: {fault}",
        fix="install both in one command from one index, as in pip install --force-reinstall torch torchvision "
        "--index-url https://download.pytorch.org/whl/cpu",
    )


def _fault_of_torchvision(error: BaseException) -> str:
    if not isinstance(error, ImportError):
        return ""
    try:
        import_module("torchvision")  # no dependency of ours; transformers and timm import it where it is installed
    except (ImportError, RuntimeError, OSError) as broken:
        return _short(broken)
    return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _internal(error: BaseException) -> CliplensError:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}cliplens" in frame.filename] or frames
    where = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return InternalError(
        expected="the command to succeed",
        found=f"{type(error).__name__}: {_short(error)}{where}",
        fix="run the command again with --debug and report the traceback as an issue",
    )


def _short(error: BaseException) -> str:
    """Return the first line of an error message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def without_password(text: str) -> str:
    """Replace the user, password and query of every URL in a text with asterisks.

    >>> without_password("no answer from https://me:secret@host/v1?key=x")
    'no answer from https://***@host/v1?***'
    """
    return re.sub(r"(?<=\w://)[^\s/?#]*@", "***@", re.sub(r"(\w://[^\s?#]*\?)[^\s'\"]+", r"\1***", text))


def size(count: int | float) -> str:
    """Format a number of bytes with a decimal unit.

    >>> size(700), size(5_300_000), size(72e9)
    ('700 bytes', '5.3 MB', '72 GB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2g} {unit}" if count < 100 * factor else f"{count / factor:.0f} {unit}"
    return f"{count:.0f} bytes"
