"""Progress bars nest: each stands on a line of its own, the inner ones go when done, and a log shows no steps."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm.auto import tqdm

from cliplens.progress import Bar, steps_bar
from cliplens.run import Settings, run


class Terminal(io.StringIO):
    """Stands for a terminal: keeps what has been written, and draws it as a screen of lines."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Return the lines a person sees."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            else:
                padded = lines[row].ljust(column)
                lines[row] = padded[:column] + part + padded[column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_run_step_and_batches_are_three_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal)
    with steps_bar("first", ["harvest", "train"]) as begin:
        begin("train")
        with Bar(total=4, desc="shards", delay=0, mininterval=0, file=terminal) as shards:
            shards.update()
            with Bar(total=9, desc="pairs", delay=0, mininterval=0, file=terminal) as pairs:
                pairs.update(3)
                seen = terminal.screen()
    assert [re.split(r"[:|]", line)[0] for line in seen if line] == ["first", "shards", "pairs"]
    assert seen[0].startswith("first: train: step 2 of 2")
    assert "1/4" in seen[1]
    assert "3/9" in seen[2]


def test_inner_bars_go_and_the_outer_one_stays(terminal: Terminal) -> None:
    with Bar(total=2, desc="outer", delay=0, mininterval=0, file=terminal) as outer:
        for _ in range(2):
            for _ in Bar(range(3), desc="inner", delay=0, mininterval=0, file=terminal):
                pass
            outer.update()
    lines = [line for line in terminal.screen() if line]
    assert len(lines) == 1
    assert lines[0].startswith("outer: 100%")


def test_a_bar_of_a_library_nests_too(terminal: Terminal) -> None:
    with Bar(total=2, desc="ours", delay=0, mininterval=0, file=terminal) as ours:
        ours.update()
        with tqdm(total=5, desc="Training SAE", mininterval=0, file=terminal) as theirs:
            theirs.update(2)
            seen = terminal.screen()
    assert [line.split(":")[0] for line in seen if line] == ["ours", "Training SAE"]


def test_messages_stand_above_the_bars(terminal: Terminal) -> None:
    with Bar(total=2, desc="outer", delay=0, mininterval=0, file=terminal) as outer:
        outer.update()
        Bar.write("pairs: 2 of 3 used", file=terminal)
        seen = [line for line in terminal.screen() if line]
    assert seen[0] == "pairs: 2 of 3 used"
    assert seen[-1].startswith("outer:")


def test_short_work_has_no_bar() -> None:
    shown = Terminal()
    for _ in Bar(range(3), desc="quick", file=shown):
        pass
    assert shown.getvalue().strip() == ""


def test_a_log_has_no_bar() -> None:
    log = io.StringIO()
    for _ in Bar(range(3), desc="pairs", delay=0, mininterval=0, file=log, disable=False):
        pass
    assert log.getvalue() == ""


def test_a_command_in_a_pipe_writes_no_bar_of_a_library_either(tmp_path: Path) -> None:
    asked = {"--pairs": "world:64", "--d-sae": "16", "--k": "4", "--samples": "256", "--batch-size": "64"}
    options = [text for option in (asked | {"--out": str(tmp_path / "run")}).items() for text in option]
    whole = [sys.executable, "-m", "cliplens", "train", *options]
    done = subprocess.run(whole, capture_output=True, text=True, check=True)
    assert "Training SAE" not in done.stderr
    assert "\r" not in done.stderr


def test_the_steps_of_a_run_are_named_in_a_terminal_only(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(pairs="world:64", d_sae=16, k=4, samples=256, batch_size=64)
    monkeypatch.setattr("sys.stderr", terminal)
    run(settings, tmp_path / "first", until="name")
    named = re.findall(r"first: (\w+): step (\d) of 4", terminal.getvalue())
    assert list(dict.fromkeys(named)) == [("harvest", "1"), ("train", "2"), ("score", "3"), ("name", "4")]
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    run(settings, tmp_path / "second", until="name")
    assert "step 1 of" not in log.getvalue()


def test_bars_nest_in_a_notebook() -> None:
    pytest.importorskip("ipywidgets")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    code = """
from cliplens.progress import Bar, steps_bar
with steps_bar("first", ["harvest", "train"]) as begin:
    begin("train")
    for _ in Bar(range(3), desc="pairs", delay=0):
        pass
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300)
    client.execute()
    outputs = notebook.cells[0]["outputs"]
    assert [output for output in outputs if output["output_type"] in ("error", "stream")] == []
    views = [o["data"]["application/vnd.jupyter.widget-view+json"] for o in outputs if "data" in o]
    texts = [state.get("value") for state in client.widget_state.values()]
    assert len(views) >= 1
    assert any(str(text).replace("\u2007", " ").startswith("first: train: step 2 of 2") for text in texts)
