"""Account for every row of a source: used, quarantined, or left out on request."""

from dataclasses import dataclass

from cliplens.errors import PairsError


@dataclass(frozen=True)
class RowAccount:
    """Counts of the rows of a source. `rows = used + quarantined + left_out` is checked.

    >>> print(RowAccount(rows=100, used=97, quarantined=3, left_out=0))
    100 rows: 97 used, 3 quarantined
    """

    rows: int
    """Rows (records, images of a folder, samples of shards) in the source."""
    used: int
    """Rows with at least one usable pair."""
    quarantined: int
    """Rows without a usable pair."""
    left_out: int
    """Rows left out on request, by a limit or by taking part of the pairs."""
    unit: str = "row"

    def __post_init__(self) -> None:
        if self.used + self.quarantined + self.left_out != self.rows or min(self.used, self.quarantined) < 0:
            raise PairsError(
                expected=f"{self.rows} {self.unit}s = used + quarantined + left out",
                found=f"{self.used} + {self.quarantined} + {self.left_out}",
                fix="report this with the source: rows were lost while reading",
            )

    def __str__(self) -> str:
        left_out = f", {self.left_out:,} left out on request" if self.left_out else ""
        rows = self.unit if self.rows == 1 else f"{self.unit}s"
        return f"{self.rows:,} {rows}: {self.used:,} used, {self.quarantined:,} quarantined{left_out}"
