"""Every command, option and name of the package that a page or a message tells the reader to use exists."""

import ast
import importlib
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import click
import pytest
from typer.main import get_command

import cliplens
from cliplens.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CODE = [p for folder in ("src", "plugins", "hooks") for p in sorted((ROOT / folder).rglob("*.py"))]
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
_COMMAND = re.compile(r"(?:^|[`\s(])cliplens ([a-z]+)((?: [^\n`]*)?)")
_NAME = re.compile(r"\bcliplens(?:\.[A-Za-z_]\w*)+")
FOREIGN = {"--nproc-per-node", "--max-restarts", "--standalone", "--no-deps", "--from", "--order", "--help"}
FOREIGN |= {"--index-url", "--force-reinstall"}
"""Options of torchrun, pip, pytest and every command line."""


@cache
def commands() -> dict[str, click.Command]:
    group = get_command(app)
    context = click.Context(group)  # type: ignore[arg-type]
    return {name: group.get_command(context, name) for name in group.list_commands(context)}  # type: ignore[attr-defined]


@cache
def options_of(name: str) -> frozenset[str]:
    command = commands()[name]
    below = [command, *getattr(command, "commands", {}).values()]
    return frozenset(o for c in below for p in c.params for o in (*p.opts, *p.secondary_opts)) | {"--help"}


@cache
def known_options() -> frozenset[str]:
    return frozenset().union(*map(options_of, commands()), FOREIGN, {"--debug", "--version"})


def options_of_scripts(text: str) -> set[str]:
    """Options of the scripts of the project that a text names."""
    named = re.findall(r"\b((?:benchmarks|examples|docs|src|plugins|tests)[/.][\w/.-]+)", text)
    paths = [ROOT / (name if name.endswith(".py") else name.replace(".", "/") + ".py") for name in named]
    if any("benchmarks" in path.parts for path in paths):  # these share a parser
        paths += (ROOT / "benchmarks").rglob("*.py")
    found = {option for path in paths if path.is_file() for option in _OPTION.findall(path.read_text())}
    return found


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a file, docstrings included; parts of one f-string as one text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_a_page_names_exists() -> None:
    wrong = []
    for page in PAGES:
        text = page.read_text()
        known = known_options() | options_of_scripts(text)
        wrong += [f"{page.name}: {option}" for option in sorted(set(_OPTION.findall(text)) - known)]
    assert not wrong, "\n".join(wrong)


def test_every_option_a_message_names_exists() -> None:
    wrong = []
    for path in CODE:
        for line, text in strings_of(path):
            unknown = set(_OPTION.findall(text)) - known_options()
            unknown -= options_of_scripts(path.read_text()) if unknown else set()
            wrong += [f"{path.relative_to(ROOT)}:{line}: {option}" for option in sorted(unknown)]
    assert not wrong, "\n".join(wrong)


def test_every_command_that_is_named_exists_and_has_its_options() -> None:
    wrong = []
    texts = [(p.name, p.read_text()) for p in PAGES]
    texts += [(f"{p.relative_to(ROOT)}:{line}", text) for p in CODE for line, text in strings_of(p)]
    for where, text in texts:
        for name, rest in _COMMAND.findall(text):
            if name not in commands():  # a word of a sentence, or a command that was mistyped or renamed
                meant = get_close_matches(name, commands(), n=1, cutoff=0.8)
                wrong += [f"{where}: cliplens {name}"] if meant or "--" in rest else []
                continue
            own = re.split(r"  |\s#|&&|cliplens", rest)[0]
            wrong += [
                f"{where}: cliplens {name} {o}" for o in set(_OPTION.findall(own)) - options_of(name) - {"--debug"}
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_package_a_page_gives_exists(page: Path) -> None:
    wrong = [name for name in sorted(set(_NAME.findall(page.read_text()))) if not there(name)]
    assert not wrong, "\n".join(wrong)


def test_every_name_of_the_package_a_message_gives_exists() -> None:
    wrong = []
    for path in CODE:
        for line, text in strings_of(path):
            wrong += [f"{path.relative_to(ROOT)}:{line}: {n}" for n in set(_NAME.findall(text)) if not there(n)]
    assert not wrong, "\n".join(wrong)


@cache
def there(name: str) -> bool:
    """Whether a dotted name can be reached: a module, what it holds, or a group of entry points."""
    found: object = cliplens
    path = "cliplens"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            try:
                found = importlib.import_module(path)
                continue
            except ImportError:
                return name in groups()
        found = getattr(found, part)
    return True


@cache
def groups() -> frozenset[str]:
    from importlib.metadata import entry_points

    return frozenset(entry_points().groups)
