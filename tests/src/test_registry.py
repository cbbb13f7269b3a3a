"""Plugins are found through their entry-point group, in the former group too, and one of another contract is named."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cliplens
from cliplens import registry
from cliplens.contracts import ModelSource

TOWER = Path(__file__).parents[2] / "examples" / "tower"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put the example tower on the path, with the entry points given as metadata."""
    info = tmp_path / "example_tower-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-tower\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(TOWER))

    def write(entries: str) -> None:
        (info / "entry_points.txt").write_text(entries)
        registry.plugins.cache_clear()

    yield write
    registry.plugins.cache_clear()
    sys.modules.pop("example_tower", None)


def test_a_source_registered_in_the_former_group_is_found_with_a_warning(install: Callable[[str], None]) -> None:
    install("[cliplens.towers]\ntower = example_tower:ExampleTower\nmodels = example_tower:ExampleModels\n")
    with pytest.warns(DeprecationWarning, match=r"'models' of example-tower .* its group is cliplens.models"):
        assert cliplens.load("example", device="cpu").text is None


def test_a_plugin_of_another_contract_is_named(
    install: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    install("[cliplens.models]\ntower = example_tower:ExampleTower\n")
    assert all(plugin.name != "tower" for plugin, _ in registry.made("models", ModelSource))
    assert "Expected ModelSource from the entry point 'tower' of example-tower" in caplog.text
