"""No row of a delimited file is lost: dialects, quoting and line ends, well-formed or not."""

import csv
import io
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplens.errors import PairsError
from cliplens.pairs import read_pairs
from cliplens.pairs.dialect import delimiter_named
from cliplens.pairs.quotes import is_malformed, quoted_cells

LETTERS = string.ascii_letters + " éß中"
PLAIN = st.text(LETTERS, min_size=1, max_size=12).filter(str.strip)
RICH = st.text(LETTERS + "\"',;|\t\n", min_size=1, max_size=20).filter(lambda s: s.strip() and "\r" not in s)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property: a new one for each takes longer than the example."""
    return tmp_path_factory.mktemp("tables")


@given(
    captions=st.lists(RICH, min_size=1, max_size=8),
    delimiter=st.sampled_from(",\t;|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    ending=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
@settings(max_examples=150, deadline=None)
def test_tables_by_the_csv_module_are_read_back(
    folder: Path,
    captions: list[str],
    delimiter: str,
    quoting: int,
    ending: str,
    mark: bool,
    suffix: str,
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=ending)
    writer.writerow(["image", "caption"])
    writer.writerows((f"{n}.png", caption) for n, caption in enumerate(captions))
    path = folder / f"set{suffix}"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + file.getvalue().encode())
    pairs = read_pairs(path)
    assert pairs.captions == captions
    assert pairs.ids == tuple(f"{n}.png" for n in range(len(captions)))
    assert pairs.account().used == len(captions)


@given(
    captions=st.lists(PLAIN | st.sampled_from(['"Stop', '"Go', 'say "hi"', 'ends"', '"', '""', '"x" y']), min_size=1),
    ending=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from(",\t;|"),
)
@settings(max_examples=150, deadline=None)
def test_quotation_marks_that_are_text_swallow_no_row(
    folder: Path, captions: list[str], ending: str, delimiter: str
) -> None:
    path = folder / "set.csv"
    rows = [delimiter.join(["image", "caption"]), *(f"{n}.png{delimiter}{c}" for n, c in enumerate(captions))]
    path.write_bytes((ending.join(rows) + ending).encode())
    pairs = read_pairs(path)
    assert pairs.ids == tuple(f"{n}.png" for n in range(len(captions)))
    for got, written in zip(pairs.captions, captions, strict=True):
        assert got in (written, written[1:-1].replace('""', '"'))
    assert read_pairs(path, quoting="none").captions == captions


@given(widths=st.lists(st.integers(1, 5), min_size=1, max_size=30), delimiter=st.sampled_from(",\t;|"))
@settings(max_examples=60, deadline=None)
def test_rows_of_another_width_are_bad_pairs_and_accounted_for(folder: Path, widths: list[int], delimiter: str) -> None:
    path = folder / "set.csv"
    rows = [delimiter.join([f"{n}.png", *["word"] * (width - 1)]) for n, width in enumerate(widths)]
    path.write_text("\n".join([delimiter.join(["image", "caption"]), *rows]) + "\n")
    account = read_pairs(path).account()
    assert (account.rows, account.used) == (len(widths), widths.count(2))


def test_a_stray_mark_and_proper_quotes_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text('image,caption\n0.png,"a, b"\n1.png,"Stop\n2.png,"two\nlines"\n3.png,end"\n4.png,"c ""d"""\n')
    pairs = read_pairs(path)
    assert pairs.captions == ["a, b", '"Stop', "two\nlines", 'end"', 'c "d"']
    assert "1 rows hold a quotation mark that nothing closes" in pairs.notes[1]
    strict = read_pairs(path, quoting="minimal")
    assert strict[1].caption_problem == "line 3: a quotation mark that is never closed"
    assert strict.account().quarantined == 1


def test_a_closing_mark_rows_later_swallows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "set.tsv"
    captions = [f"number {n}" for n in range(1000)]
    captions[100], captions[900] = '"Stop at the corner', 'and go"'
    path.write_text("image\tcaption\n" + "".join(f"{n}.png\t{c}\n" for n, c in enumerate(captions)))
    assert read_pairs(path).captions == captions


def test_the_dialect_is_reported_and_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("image;caption\na.png;one, two\n")
    pairs = read_pairs(path)
    assert pairs.captions == ["one, two"]
    told = "semicolon-delimited, quotation marks enclose cells; images from 'image', captions from 'caption'"
    assert pairs.notes == (f"set.csv: {told}",)
    path.write_text("image~caption\na.png~one\n")
    assert read_pairs(path, delimiter="~").captions == ["one"]
    assert delimiter_named("tab") == "\t"
    with pytest.raises(PairsError, match=r"Expected a delimiter of one character.*found 'xy'"):
        read_pairs(path, delimiter="xy")


def test_a_file_of_captions_alone(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text('caption\na dog, asleep\n"two, quoted"\n')
    assert read_pairs(path, modalities="text").captions == ["a dog, asleep", "two, quoted"]


def test_a_column_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("image,caption,caption\na.png,x,y\n")
    with pytest.raises(PairsError, match="Expected one column 'caption'"):
        read_pairs(tmp_path / "set.csv")


@given(cells=st.lists(st.text('ab",\n', max_size=6), min_size=1, max_size=4))
def test_quoted_cells_are_those_of_the_csv_module(cells: list[str]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="", quoting=csv.QUOTE_ALL).writerow(cells)
    text = file.getvalue()
    assert quoted_cells(text, ",") == cells
    assert not is_malformed(text, ",")
