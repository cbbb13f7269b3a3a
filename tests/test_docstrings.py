"""The examples in public docstrings run, give what they say, and take less than a second each."""

import ast
import doctest
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = (ROOT / "src", ROOT / "hooks", ROOT / "plugins")
LEAST = 42
SECONDS = 1.0
"""CPU time one docstring may take; the import of its module does not count."""
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass(frozen=True)
class Documented:
    """A public module, class or function whose docstring holds an example."""

    module: str
    name: str
    docstring: str
    line: int
    file: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def documented(root: Path) -> Iterator[Documented]:
    """Yield what has an example. Files are parsed and not imported, so that collecting the tests stays quick."""
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        if ">>>" not in text:
            continue
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for name, node in definitions(ast.parse(text)):
            docstring = ast.get_docstring(node)
            if docstring and ">>>" in docstring:
                yield Documented(module, name, docstring, getattr(node, "lineno", 1), str(path.relative_to(ROOT)))


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef]]:
    """Yield the module and every public class, function and method in it, with its name."""
    if isinstance(node, ast.Module):
        yield "", node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from definitions(child, f"{name}.") if isinstance(child, ast.ClassDef) else ()


EXAMPLES = [found for root in ROOTS for found in documented(root)]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Import what a model needs, so that no example is charged for it."""
    import cliplens

    cliplens.load("world", device="cpu")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_of_a_docstring_runs(example: Documented) -> None:
    module = importlib.import_module(example.module)
    test = doctest.DocTestParser().get_doctest(
        example.docstring, dict(vars(module)), str(example), example.file, example.line
    )
    written: list[str] = []
    started = time.process_time()
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=written.append)
    took = time.process_time() - started
    assert outcome.failed == 0, "".join(written)
    assert took < SECONDS, f"{took:.1f} s"


def test_there_are_enough_examples() -> None:
    assert len(EXAMPLES) >= LEAST
