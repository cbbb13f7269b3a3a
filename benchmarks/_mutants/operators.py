"""Single changes of a source file, as mutation tools make them, inside the bodies of functions."""

import ast
import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
NAMES = {
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "minimum": "maximum",
    "maximum": "minimum",
    "argmin": "argmax",
    "argmax": "argmin",
    "any": "all",
    "all": "any",
    "floor": "ceil",
    "ceil": "floor",
    "mean": "sum",
    "clamp_min": "clamp_max",
    "clamp_max": "clamp_min",
}
_SKIPPED = (ast.Raise, ast.Assert, ast.JoinedStr)
"""Parts whose changes are changes of messages."""
_SILENT = ("Bar", "log", "warnings", "Column", "lru_cache")
"""Calls whose changes are changes of messages, of descriptions of columns, or of how much is kept in memory."""
_AT_IMPORT = ("returns", "annotation", "decorator_list", "args")
"""Parts of a definition that are computed when it is imported, or never."""


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and how it reads."""

    path: Path
    number: int
    """Which change of the file it is, in the order of the source."""
    function: str
    """Qualified name of the outermost function around it."""
    first_line: int
    """First line of that function, decorators included."""
    line: int
    before: str
    after: str

    @property
    def key(self) -> str:
        """Name of this change in the list of reasons, without line numbers."""
        return f"{self.path.parent.name}/{self.path.name} {self.function}: {self.before} -> {self.after}"

    def code(self) -> CodeType:
        """Return the code of the function with the change."""
        tree = ast.parse(self.path.read_text())
        place, _, replacement = list(_changes(tree))[self.number]
        place.put(replacement)
        module = compile(ast.fix_missing_locations(tree), str(self.path), "exec", dont_inherit=True)
        return functions_of(module)[self.function, self.first_line]


@dataclass(frozen=True)
class _Place:
    """Where a node stands: in a field of its parent, or at an index of a list there."""

    parent: ast.AST
    name: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node


def mutants_of(path: Path) -> list[Mutant]:
    """Return every single change of a file, in the order of the source."""
    tree = ast.parse(path.read_text())
    owners = {id(part): owner for owner in _functions(tree.body) for part in ast.walk(owner[2])}
    found = []
    for number, (_, node, replacement) in enumerate(_changes(tree)):
        before, after = _text(node), _text(replacement)
        if before != after:
            name, first, _function = owners[id(node)]
            found.append(Mutant(path, number, name, first, node.lineno, before, after))
    return found


def functions_of(module: CodeType) -> dict[tuple[str, int], CodeType]:
    """Return the code of each function and method of a module, by qualified name and first line."""
    found = {}
    for part in module.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & inspect.CO_NEWLOCALS:  # the body of a class has no locals of its own
                found[part.co_qualname, part.co_firstlineno] = part
            else:
                found |= functions_of(part)
    return found


def _functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, int, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)]), node


def _changes(parent: ast.AST, inside: bool = False) -> Iterator[tuple[_Place, Any, Any]]:
    """Yield place, node and replacement of each change below a node."""
    for name, value in ast.iter_fields(parent):
        if name in _AT_IMPORT and isinstance(parent, ast.FunctionDef | ast.AnnAssign | ast.ClassDef):
            continue
        deeper = inside or (isinstance(parent, ast.FunctionDef) and name == "body")
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or isinstance(node, _SKIPPED) or _silent(node):
                continue
            if deeper:
                place = _Place(parent, name, index)
                yield from ((place, node, replacement) for replacement in _variants(node))
                if name == "test" and not isinstance(node, ast.Compare | ast.UnaryOp):
                    yield place, node, ast.UnaryOp(ast.Not(), node)
            yield from _changes(node, deeper)


def _silent(node: ast.AST) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute):  # `log.warning`
        called = called.value
    return isinstance(called, ast.Name) and called.id in _SILENT


def _variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912
    match node:
        case ast.Compare(ops=ops):
            for n, op in enumerate(ops):
                if type(op) in SWAPS:
                    yield _with(node, ops=[*ops[:n], SWAPS[type(op)](), *ops[n + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in SWAPS:
            yield _with(node, op=SWAPS[type(op)]())
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Attribute(attr=attr) if attr in NAMES:
            yield _with(node, attr=NAMES[attr])
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Call(keywords=keywords):
            for n, keyword in enumerate(keywords):
                if keyword.arg is not None:
                    yield _with(node, keywords=[*keywords[:n], *keywords[n + 1 :]])
        case ast.Break():
            yield ast.copy_location(ast.Continue(), node)
        case ast.Continue():
            yield ast.copy_location(ast.Break(), node)


def _with(node: ast.AST, **changed: object) -> ast.AST:
    again = copy.copy(node)
    for name, value in changed.items():
        setattr(again, name, value)
    return again


def _text(node: ast.AST, most: int = 100) -> str:
    line = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return line if len(line) <= most else line[: most - 3] + "..."
