"""Shared parts of the benchmark scripts, and the list of scripts."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """Import a file of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


shared, runner = loaded("_bench"), loaded("__main__")


def test_a_result_file_holds_command_machine_versions_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["some.py", "--rounds", "3", "--seeds", "4", "5", "--quick", "--results", str(tmp_path)]
    )
    with shared.bench("some.py", "Doc.", rounds=15, seeds=[0], quick=False, judge=None, width=(64, "of it")) as b:
        assert (b.args.rounds, b.args.seeds, b.args.quick, b.args.judge, b.args.width) == (3, [4, 5], True, None, 64)
        b.table("Times", {"case": "", "ms": ".1f", "ratio": ".2f"})
        b.row("stock", 1.234, shared.ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]))
        b.row("hooked", float("nan"), None)
        b.note("peak", np.float64(3.5), ".2f")
        b.keep("raw", [1, 2])
    printed = capsys.readouterr().out
    assert "| stock | 1.2 | 2.00 (2.00 to 2.00) |" in printed
    assert "| hooked | - | - |" in printed
    result = json.loads((tmp_path / "some.json").read_text())
    assert result["tables"][0]["rows"] == [
        ["stock", 1.234, {"value": 2.0, "low": 2.0, "high": 2.0}],
        ["hooked", None, None],
    ]
    assert result["notes"] == {"peak": 3.5}
    assert result["data"] == {"raw": [1, 2]}
    assert {"command", "date", "commit", "machine", "versions", "seconds"} <= set(result)
    assert result["machine"]["threads"] == 1


def test_nothing_is_written_when_a_script_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["some.py", "--results", str(tmp_path)])
    with pytest.raises(ZeroDivisionError), shared.bench("some.py", "Doc."):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_ratio_is_paired_within_rounds() -> None:
    under = np.array([1.0, 10.0, 100.0])
    found = shared.ratio(1.5 * under, under)
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_a_mean_leaves_nan_out_and_has_a_t_interval() -> None:
    found = shared.mean([1.0, 2.0, float("nan"), 3.0])
    assert found.value == 2.0
    assert found.high - found.value == pytest.approx(4.302653 / 3**0.5, abs=1e-5)
    assert np.isnan(shared.mean([float("nan")]).value)
    assert f"{shared.mean([1.0]):.1f}" == "1.0"


def test_every_case_runs_once_a_round_in_changing_order() -> None:
    order: list[str] = []
    cases = {name: lambda name=name: order.append(name) for name in "abcd"}
    seconds = shared.alternate(cases, 6, warmup=0)
    assert all(len(taken) == 6 for taken in seconds.values())
    rounds = [order[i : i + 4] for i in range(0, len(order), 4)]
    assert all(sorted(r) == list("abcd") for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


def scripts() -> set[str]:
    return {path.name for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_")}


def test_every_script_has_its_options_and_a_row_in_the_list() -> None:
    assert scripts() == set(runner.SCRIPTS) | set(runner.BY_HAND) | set(runner.ON_THE_INDEX)
    listed = set(re.findall(r"^\| `(\w+\.py)`", (BENCHMARKS / "README.md").read_text(), re.MULTILINE))
    assert listed == scripts()


def test_every_option_of_the_two_forms_is_one_the_script_has() -> None:
    for name, form in runner.SCRIPTS.items():
        text = (BENCHMARKS / name).read_text()
        for flag in re.findall(r"--([a-z-]+)", f"{form.short or ''} {form.long or ''}"):
            option = flag.replace("-", "_")
            if option == "threads":  # every script has it
                continue
            assert f"{option}=" in text or f'"{option}":' in text, (name, flag)


def test_the_short_form_is_part_of_the_long_one() -> None:
    assert set(runner.commands(["all"], long=False)) < set(runner.commands(["all"], long=True)) == set(runner.SCRIPTS)
    with pytest.raises(SystemExit, match=r"found wrong\.py"):
        runner.commands(["wrong.py"], long=False)


def test_a_short_form_that_measures_less_does_not_replace_the_results_of_the_long_one() -> None:
    short, long = (runner.commands(["all"], long=long) for long in (False, True))
    for name, command in short.items():
        same = runner.SCRIPTS[name].short == runner.SCRIPTS[name].long
        assert (command == long[name]) is same
        assert command[-1].endswith("results" if same else "short")
    assert {command[-1] for command in long.values()} == {str(runner.RESULTS)}


def test_the_command_in_a_result_names_no_folder_of_the_machine() -> None:
    words = ["/home/me/benchmarks/world.py", "--pairs", "8", "--results", "/home/me/here", "--seeds", "0", "1"]
    assert shared._command(words) == "python benchmarks/world.py --pairs 8 --seeds 0 1"
