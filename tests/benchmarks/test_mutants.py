"""The script that changes the source: what it changes, and that its lists fit the source."""

import logging
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from _mutants.named import NAMED, Named  # noqa: E402
from _mutants.operators import mutants_of  # noqa: E402

SOURCE = '''
LIMIT = 3

class Box:
    def inside(self, x: int = 4) -> bool:
        """Two words."""
        if not x:
            raise ValueError("no " + str(1))
        return 0 < x and x <= LIMIT


def total(rows):
    found = 0
    log.info("rows", stacklevel=3)
    for row in Bar(rows, disable=True):
        if row is None:
            continue
        found += max(row, key=abs)
    return -found
'''


def test_every_single_change_inside_functions_and_no_message(tmp_path: Path) -> None:
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    found = {(m.function, m.before, m.after) for m in mutants_of(path)}
    assert found == {
        ("Box.inside", "not x", "x"),
        ("Box.inside", "0 < x", "0 <= x"),
        ("Box.inside", "0", "1"),
        ("Box.inside", "x <= LIMIT", "x < LIMIT"),
        ("Box.inside", "0 < x and x <= LIMIT", "0 < x or x <= LIMIT"),
        ("total", "0", "1"),
        ("total", "row is None", "row is not None"),
        ("total", "continue", "break"),
        ("total", "found += max(row, key=abs)", "found -= max(row, key=abs)"),
        ("total", "max", "min"),
        ("total", "max(row, key=abs)", "max(row)"),
        ("total", "-found", "found"),
    }


def test_the_code_of_a_mutant_does_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "box.py"
    path.write_text(SOURCE)
    by_change = {m.after: m for m in mutants_of(path) if m.function == "total"}
    space: dict[str, object] = {"log": logging.getLogger("box"), "Bar": lambda rows, disable: rows}
    exec(compile(SOURCE, str(path), "exec"), space)
    total = space["total"]
    assert total([[1, -5], None, [2]]) == 3  # type: ignore[operator]
    total.__code__ = by_change["max(row)"].code()  # type: ignore[attr-defined]
    assert total([[1, -5], None, [2]]) == -3  # type: ignore[operator]
    total.__code__ = by_change["break"].code()  # type: ignore[attr-defined]
    assert total([[1, -5], None, [2]]) == 5  # type: ignore[operator]


@pytest.mark.parametrize("change", NAMED, ids=lambda change: change.what)
def test_named_changes_fit_the_source(change: Named) -> None:
    source = (ROOT / change.path).read_text()
    assert source.count(change.old) == 1
    compile(source.replace(change.old, change.new), change.path, "exec")
    assert all((ROOT / test).exists() for test in change.tests)
