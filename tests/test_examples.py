"""The packages in examples/ install, are found through their entry points, and work."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cliplens
from cliplens import registry
from cliplens.contracts import Generator, Metric
from cliplens.errors import InputError
from cliplens.records import Batch
from cliplens.run import OpenedRun, Settings, run
from cliplens.tally import tally
from cliplens.testing import check_tower
from cliplens_plugins.steering.command import app

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("tower", "metric", "generator")
OPTIONS = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the three packages."""
    target = tmp_path_factory.mktemp("site")
    folders = [str(EXAMPLES / name) for name in NAMES]
    command = [sys.executable, "-m", "pip", "install", *OPTIONS, "--target", str(target), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(autouse=True)
def on_the_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    registry.plugins.cache_clear()
    yield
    registry.plugins.cache_clear()
    for name in NAMES:
        sys.modules.pop(f"example_{name}", None)


def test_the_tower_is_found_by_name_and_conforms() -> None:
    clip = cliplens.load("example", device="cpu")
    assert clip.text is None
    check_tower(clip.vision)
    assert cliplens.wrap(clip.model).vision.cfg.family == "example"


def batch(seed: int, n: int = 40, d_sae: int = 6) -> Batch:
    """Sparse random codes; the last latent never fires."""
    g = torch.Generator().manual_seed(seed)
    dense = [torch.rand(n, d_sae, generator=g) * (torch.rand(n, d_sae, generator=g) < 0.3) for _ in range(2)]
    for codes in dense:
        codes[:, -1] = 0
    return Batch.from_dense(*dense, ids=[f"{seed}-{i}" for i in range(n)])


def new_metric() -> Metric:
    return registry.find("metrics", "mean_activation").make(Metric)


def test_the_metric_agrees_with_its_definition_and_merges() -> None:
    batches = [batch(0), batch(1)]
    found = tally(batches, [new_metric()], decoder=None)
    assert found.failed == ()
    for modality in ("image", "text"):
        dense = torch.cat([b.codes.of(modality).dense() for b in batches]).double().numpy()  # type: ignore[union-attr,arg-type]
        fires = (dense > 0).sum(0)
        expected = np.divide(dense.sum(0), fires, out=np.full(len(fires), np.nan), where=fires > 0)
        np.testing.assert_allclose(found.table[f"mean_activation_{modality}"], expected, rtol=1e-12)
        assert np.isnan(expected[-1])
    first, second = new_metric(), new_metric()
    first.update(batches[0])
    second.update(batches[1])
    restored = new_metric()
    restored.load_state(second.state())
    first.merge(restored)
    merged = first.findings(None).columns
    for name, column in merged.items():
        np.testing.assert_allclose(column, found.table[name], rtol=1e-12)
    with pytest.raises(InputError, match="another MeanActivationMetric"):
        first.merge(registry.find("metrics", "mds").make(Metric))


def test_the_generator_draws_the_same_picture_for_the_same_seed() -> None:
    draw = registry.find("generators", "barcode").make(Generator)
    rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    first, again, other = (draw.generate(rows, seed=seed) for seed in (1, 1, 2))
    assert [picture.size for picture in first] == [(16, 32)] * 3
    assert [p.tobytes() for p in first] == [p.tobytes() for p in again] != [p.tobytes() for p in other]
    assert sorted(np.asarray(first[0])[0]) == sorted(np.asarray(other[0])[0])
    with pytest.raises(InputError, match="no options but height"):
        draw.generate(rows, seed=0, width=3)


def test_a_run_and_a_steering_use_them(tmp_path: Path) -> None:
    folder = run(
        Settings(pairs="world:120", d_sae=32, k=4, samples=1024, batch_size=128), tmp_path / "run", until="name"
    )
    table = OpenedRun(folder).table
    alive = table["alive"].astype(bool)
    assert np.isfinite(table["mean_activation_image"][alive] + table["mean_activation_text"][alive]).any()
    latent = int(np.flatnonzero(alive)[0])
    asked = [str(tmp_path / "run"), "--generator", "barcode", "--edit", f"{latent}=+4", "--dose", "0,1", "--pairs", "2"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "steering" / "strip.png").exists()
