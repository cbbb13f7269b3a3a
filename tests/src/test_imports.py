"""No file imports itself through others, and every public name says what it is."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"cliplens": ROOT / "src", "cliplens_hooks": ROOT / "hooks", "cliplens_plugins": ROOT / "plugins"}

REFUSES = "a wrong shape is an error of cliplens that names it, which the shape check of the tests would hide"
UNSHAPED = {
    "cliplens.analysis.paths.check_towards": REFUSES,
    "cliplens.arrays.check_same_rows": REFUSES,
    "cliplens_plugins.modality.classes.classify": REFUSES,
    "cliplens_plugins.modality.classes.classify_fixed": REFUSES,
    "cliplens_plugins.modality.gap.modality_gap": REFUSES,
    "cliplens_plugins.modality.information.decompose": REFUSES,
    "cliplens_plugins.modality.sums.sums_of_codes": REFUSES,
}
"""Functions whose array arguments have no shape in the signature, with the reason."""


def modules() -> dict[str, Path]:
    """Module name -> file, of the three packages."""
    found = {}
    for package, home in PACKAGES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the three packages that a file imports, inside functions too, for type checkers alone not."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known or node.module in known:
                    yield name if name in known else node.module


def test_no_import_cycles() -> None:
    known = modules()
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def public(node: ast.AST, prefix: str, inherits: bool = False) -> Iterator[tuple[str, ast.AST, bool]]:
    """Public classes, functions and methods: name, node, and whether a base class may hold the docstring."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try):
            yield from public(child, prefix, inherits)
        elif isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            yield name, child, inherits
            if isinstance(child, ast.ClassDef):
                yield from public(child, name, bool(child.bases))


def names() -> Iterator[tuple[str, ast.AST, bool]]:
    for module, path in modules().items():
        if not any(part.startswith("_") for part in module.split(".")):
            yield from public(ast.parse(path.read_text(encoding="utf-8")), module)


def overload(node: ast.FunctionDef) -> bool:
    return any("overload" in ast.unparse(d) or ".setter" in ast.unparse(d) for d in node.decorator_list)


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        name
        for name, node, inherits in names()
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not (ast.get_docstring(node) or inherits)
        and not (isinstance(node, ast.FunctionDef) and overload(node))
    ]
    assert missing == []


def test_every_tensor_argument_has_a_shape() -> None:
    bare = [
        f"{name}({argument.arg})"
        for name, node, _ in names()
        if isinstance(node, ast.FunctionDef)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None
        and {"Tensor", "torch.Tensor", "np.ndarray"} & set(ast.unparse(argument.annotation).split(" | "))
    ]
    assert [argument for argument in bare if argument.partition("(")[0] not in UNSHAPED] == []
    assert UNSHAPED.keys() <= {argument.partition("(")[0] for argument in bare}, "an exception is no longer needed"
