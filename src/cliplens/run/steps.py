"""What each step of a run took, and on what it ran."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from cliplens.files import read_json, write_json
from cliplens.runfolder import RunFolder
from cliplens.store import Group

_PACKAGES = ("cliplens", "torch", "sae-lens", "transformer-lens", "open_clip_torch", "numpy")


class Steps:
    """Times each step in seconds and keeps the times in steps.json, so that a resumed run still knows them."""

    def __init__(self, folder: RunFolder, group: Group) -> None:
        self._path = folder.path / "steps.json"
        self._writes = group.rank == 0
        self.seconds: dict[str, float] = read_json(self._path) if self._path.exists() else {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        took = time.perf_counter() - started
        # A resumed run passes finished steps in no time: the longer time is the true one.
        self.seconds[name] = round(max(took, self.seconds.get(name, 0.0)), 3)
        if self._writes:
            write_json(self._path, self.seconds)


def versions() -> dict[str, str]:
    """Versions of cliplens, its hosts and Python, and the kind of machine."""
    return {
        **{package: version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
