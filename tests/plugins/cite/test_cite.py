"""`cliplens cite`: an entry for every method of a run, and one for every source that a column names."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cliplens.cli import app
from cliplens.records import Column
from cliplens.run import OpenedRun
from cliplens.runfolder import RunFolder
from cliplens.sae import architecture_names
from cliplens_plugins.cite import cited
from cliplens_plugins.cite.methods import ARCHITECTURES, ARXIV, NAMERS, PROBING, STUDIES, bibliography
from support.study_runs import study_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_run(tmp_path_factory.mktemp("cited")).folder.path


def test_the_methods_of_a_run_are_cited_once(folder: Path, tmp_path: Path) -> None:
    (folder / "studies").mkdir(exist_ok=True)
    for name in ("bias", "advice", "contribution"):
        (folder / "studies" / f"{name}.json").write_text("{}")
    (folder / "probing.json").write_text("{}")
    done = CliRunner().invoke(app, ["cite", str(folder)])
    assert done.exit_code == 0, done.exception
    keys = re.findall(r"^@\w+\{([^,]+),", done.output, re.MULTILINE)
    assert len(keys) == len(set(keys))
    wanted = {"cliplens", "saelens", "transformerlens", "openclip", "yan2025multifaceted", "gao2024scaling"}
    assert wanted | {"belrose2023leace", "hessel2021clipscore", "gurnee2023finding", "pach2025sparse"} <= set(keys)
    assert "% the column ms" in done.output
    assert done.output.count("{") == done.output.count("}")
    out = tmp_path / "methods.bib"
    done = CliRunner().invoke(app, ["cite", str(folder), "--out", str(out)])
    assert done.output == f"Written: {out}\n"
    assert out.read_text() == cited(OpenedRun(RunFolder.open(folder)))


def test_a_source_without_an_entry_is_cited_by_its_number(folder: Path) -> None:
    run = OpenedRun(RunFolder.open(folder))
    run.__dict__["table"] = run.table.with_columns({}, [Column("new", "x", source="arXiv 1234.56789")])
    assert "@misc{arxiv_1234_56789,\n  eprint = {1234.56789}" in cited(run)


def test_every_number_of_the_tables_has_an_entry() -> None:
    known = bibliography()
    named = [n for table in (ARCHITECTURES, NAMERS, STUDIES) for numbers in table.values() for n in numbers]
    assert {*named, *PROBING} <= set(known)
    assert all(ARXIV.fullmatch(key) or key in ("saelens", "transformerlens", "openclip") for key in known)
    assert set(ARCHITECTURES) <= {name.removeprefix("fast_") for name in architecture_names()}


def test_every_entry_can_be_cited_as_it_stands() -> None:
    for key, entry in bibliography().items():
        fields = dict(re.findall(r"^  (\w+) = \{(.+)\},?$", entry, re.MULTILINE))
        assert {"title", "author", "year"} <= set(fields), key
        assert "note" not in fields, key
        assert entry.count("{") == entry.count("}"), key
        assert not ARXIV.fullmatch(key) or fields["year"] == f"20{key[:2]}", key
