"""Collect bad pairs with the reason. A run stops if more than a fraction `max_bad` are bad."""

import json
from pathlib import Path
from typing import Any

from cliplens.errors import DamagedError, PairsError
from cliplens.pictures import BadPicture
from cliplens.records import ImageSource, Pair

_LISTED = 10


class Quarantine:
    """Collect bad pairs, each once, and write them to `quarantine.jsonl` as they come.

    Args:
        path: file to write; an earlier one is replaced. None keeps them in memory only.
        max_bad: fraction of pairs that may be bad. One bad pair never stops a run, however few pairs there are, unless
            `max_bad` is 0.
    """

    def __init__(self, path: Path | None = None, max_bad: float = 0.01) -> None:
        if not 0 <= max_bad <= 1:
            raise PairsError(
                expected="a fraction of bad pairs from 0 to 1", found=str(max_bad), fix="pass 0.01 for 1 %"
            )
        self.path = path
        self.max_bad = max_bad
        self._reasons: dict[str, str] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

    @property
    def count(self) -> int:
        """Number of bad pairs."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """The reason by pair id, in the order in which they were found."""
        return dict(self._reasons)

    def __contains__(self, pair_id: str) -> bool:
        return pair_id in self._reasons

    def add(self, pair: Pair, reason: str) -> None:
        """Add a bad pair. A pair that was added before keeps its reason."""
        if pair.id in self._reasons:
            return
        self._reasons[pair.id] = reason
        if self.path is not None:
            line = {"id": pair.id, "image": _written(pair.source), "caption": pair.caption, "reason": reason}
            with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def allowed(self, total: int) -> int:
        """Return how many of `total` pairs may be bad."""
        return max(int(self.max_bad * total + 1e-9), 1) if self.max_bad > 0 else 0

    def check(self, total: int) -> None:
        """Check that not too many of `total` pairs are bad.

        Raises:
            PairsError: more than allowed; the first ten are listed.
        """
        allowed = self.allowed(total)
        if self.count <= allowed and self.count < max(total, 1):
            return
        first = "; ".join(f"{i} ({r})" for i, r in list(self._reasons.items())[:_LISTED])
        more = "" if self.count <= _LISTED else f"; and {self.count - _LISTED} more"
        where = f" (all are in {self.path})" if self.path else ""
        raise PairsError(
            expected=f"at most {allowed} bad pairs among {total} (a fraction of {self.max_bad:g})",
            found=f"{self.count}: {first}{more}",
            fix=f"correct or remove them{where}, or raise max_bad (--max-bad)",
        )


def read_quarantine(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `quarantine.jsonl`; none where there is no file.

    Raises:
        DamagedError: a line is no JSON object with the id of a pair.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or "id" not in entry:
            raise DamagedError(
                expected=f"a JSON object with an id in each line of {path}",
                found=f"something else in line {number}",
                fix="delete the file and run cliplens run --resume with the options of the run",
            )
        found.append(entry)
    return found


def _written(source: ImageSource | None) -> str | None:
    if source is None or isinstance(source, BadPicture):
        return None
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    return f"{source.mode} image in memory, {source.size[0]}x{source.size[1]}"
