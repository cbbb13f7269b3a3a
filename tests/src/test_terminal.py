"""Tables fit the terminal: no line is too long, no word of a head is broken, nothing is lost."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cliplens.cli import app
from cliplens.terminal import print_table, say

ROOT = Path(__file__).parents[2]
INTERVAL = "0.500 (0.250 to 0.750)"
KINDS = (
    ["kind", "class", "words", "latents", "share", "shuffled", "p", "random"],
    [
        [kind, c, "12", "31", INTERVAL, "0.100 to 0.900", "0.500", INTERVAL]
        for kind in ("noun", "adjective")
        for c in "IT"
    ],
)
FIGURES = (
    ["configuration", "seeds", *(f"Figure number {n}" for n in range(9))],
    [[f"topk, k {k}", "3", *["0.512 a\n0.498 to 0.530"] * 9] for k in (4, 8)],
)
SENTENCES = (["latent", "top pictures say", "top captions"], [["7", "a red ring on a table; " * 4, "two stars " * 9]])
PATHS = (
    ["dictionary", "where"],
    [["one", "/a/folder/with/a/name/that/is/longer/than/any/terminal/is/wide/" + "x" * 40]],
)
NARROW = (["a", "b"], [["1", "2"]])
WIDE_LETTERS = (["name", "caption"], [["一", "赤い丸が四つある絵" * 6]])


def printed(heads: list[str], rows: list[list[str]], width: int = 80, **options: object) -> str:
    told = io.StringIO()
    print_table(heads, rows, console=Console(file=told, width=width, highlight=False), **options)
    return told.getvalue()


def columns_of(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line.rstrip())


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("table", [KINDS, FIGURES, SENTENCES, PATHS, NARROW, WIDE_LETTERS])
def test_no_line_is_longer_and_nothing_is_lost(table: tuple[list[str], list[list[str]]], width: int) -> None:
    heads, rows = table
    told = printed(heads, rows, width)
    assert max(map(columns_of, told.splitlines())) <= width
    words = told.split()
    assert all(word in words for head in heads for word in head.split())
    joined = "".join(words)
    for row in rows:
        for cell in row:
            assert all(word in joined or len(word) > 20 or not word.isascii() for word in cell.split())
    letters = sorted(c for row in rows for cell in row for c in cell if not c.isascii())
    assert [c for c in sorted(told) if not c.isascii()] == letters


def test_an_interval_is_not_broken_into_lines() -> None:
    told = printed(*KINDS)
    assert told.count("(0.250 to 0.750)") == 2 * len(KINDS[1])
    assert told.count("0.100 to 0.900") == len(KINDS[1])


def test_a_table_too_wide_comes_in_parts_that_name_their_rows() -> None:
    parts = printed(*KINDS).strip("\n").split("\n\n")
    assert len(parts) == 2
    for part in parts:
        first = part.splitlines()[0].split()
        assert first[:2] == ["kind", "class"]  # one kind has several rows, so the class names them too
    assert len(printed(*FIGURES).strip("\n").split("\n\n")) > 1
    for part in printed(*FIGURES).strip("\n").split("\n\n"):  # a short head stands at the bottom of a high one
        assert any(line.startswith("configuration") for line in part.splitlines()[:3])


def test_a_table_that_fits_is_one_with_a_line_per_row() -> None:
    assert len(printed(*KINDS, width=120).splitlines()) == 1 + len(KINDS[1])


def test_text_is_no_markup_and_empty_tables_print_their_title_only() -> None:
    assert "[red]a[/]" in printed(["[bold]b"], [["[red]a[/]"]])
    assert printed([], [], title="Nothing [here]") == "Nothing [here]\n"
    assert printed(["a"], []).split() == ["a"]
    assert printed(["", ""], [["Pairs", "12"]]).splitlines()[0].split() == ["Pairs", "12"]


@pytest.mark.parametrize("terminal", [True, False])
def test_sentences_wrap_between_words_on_a_terminal_and_not_in_a_file(terminal: bool) -> None:
    told = io.StringIO()
    text = "some words of a note " * 12
    say(Console(file=told, width=80, force_terminal=terminal, color_system=None), text, "[yellow]Note[/]")
    lines = told.getvalue().splitlines()
    assert (len(lines) == 1) != terminal
    assert " ".join(" ".join(lines).split()) == f"Note {text}".strip()
    if terminal:
        assert all(len(line) <= 80 for line in lines)
        assert {word for line in lines for word in line.split()} <= {"Note", *text.split()}


def test_every_command_prints_its_tables_here() -> None:
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("hooks/**/*.py")]
    using = [
        p.name for p in files if re.search(r"^\s*from rich\.table|rich\.table\.Table", p.read_text(), re.MULTILINE)
    ]
    assert using == ["terminal.py"]


def test_the_list_of_models_fits() -> None:
    told = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).output
    assert max(map(columns_of, told.splitlines())) <= 80
    assert "ViT-B-32" in told.split()
