"""The comparison with other libraries: environments, failures, kept measurements, and two cases on small data."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def environments() -> ModuleType:
    """Import the list of peers as the script does."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _peer_environments
    finally:
        sys.path.remove(str(BENCHMARKS))
    return _peer_environments


def test_every_case_has_a_function_for_its_peers(environments: ModuleType) -> None:
    for peer in environments.PEERS:
        assert peer.cases or peer.why, peer.name
        for case in peer.cases:
            text = (BENCHMARKS / "_peers" / f"{case}.py").read_text()
            assert f"def {peer.name}(" in text, f"{case}.py has no {peer.name}"


def test_a_peer_without_packages_runs_here(environments: ModuleType, tmp_path: Path) -> None:
    found = environments.environment(environments.Peer("own"), tmp_path, None)
    assert found.python == Path(sys.executable)
    assert found.commit == ""


def test_an_environment_is_made_once_and_sees_our_packages(
    environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(environments, "_run", lambda command, limit: asked.append(command))
    monkeypatch.setattr(environments.venv, "create", lambda home, with_pip: _folders(home))
    peer = environments.Peer("other", packages=("other>1",))
    first, second = (environments.environment(peer, tmp_path, None) for _ in range(2))
    assert first == second
    (install,) = asked
    assert install[-1] == "other>1"
    constraints = Path(install[install.index("-c") + 1]).read_text()
    assert "torch==" in constraints
    (path,) = tmp_path.rglob("_outer.pth")
    assert np.__name__ in {p.name for p in Path(path.read_text().strip()).iterdir()}
    changed = environments.Peer("other", packages=("other>2",))
    environments.environment(changed, tmp_path, None)
    assert len(asked) == 2


def _folders(home: Path) -> None:
    import sysconfig

    Path(sysconfig.get_paths(vars={"base": str(home)})["purelib"]).mkdir(parents=True)


def test_what_fails_is_said_in_one_line(environments: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(environments.PeerError, match="ValueError: no such thing"):
        environments._run([sys.executable, "-c", "raise ValueError('no such thing')"], 60)
    with pytest.raises(environments.PeerError, match="more than 1 seconds"):
        environments._run([sys.executable, "-c", "import time; time.sleep(30)"], 1)
    lost = environments.Peer("lost", source=str(tmp_path / "nothing"), commit="abc")
    with pytest.raises(environments.PeerError, match="--peer-path lost=FOLDER"):
        environments.environment(lost, tmp_path, None)


def case(environments: ModuleType, name: str, given: Path) -> dict[str, Any]:
    """Run a case of our own in this environment."""
    where = environments.Environment(Path(sys.executable))
    return dict(environments.measured(environments.Peer("cliplens"), name, where, given))


def test_our_monosemanticity_is_the_definition(environments: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    acts = (rng.random((40, 5)) * (rng.random((40, 5)) < 0.4)).astype(np.float32)
    np.savez(tmp_path / "ms.npz", acts=acts, judged=rng.normal(size=(40, 6)).astype(np.float32))
    found = case(environments, "ms", tmp_path)
    assert found["largest_difference"] < 1e-5
    (kept,) = (tmp_path / "found").iterdir()
    kept.write_text(json.dumps(found | {"mean": 7.0, "version": ""}))
    assert case(environments, "ms", tmp_path)["mean"] == 7.0  # what was measured is not measured again


def test_our_explained_variance_does_not_depend_on_an_offset(environments: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = {"W_enc": (6, 12), "b_enc": (12,), "W_dec": (12, 6), "b_dec": (6,), "rows": (50, 6)}
    np.savez(tmp_path / "dictionary.npz", k=3, **{n: rng.normal(size=s).astype(np.float32) for n, s in names.items()})
    found = case(environments, "fidelity", tmp_path)
    np.testing.assert_allclose(found["explained_variance"], found["definition"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_script_prints_tables_and_failures(tmp_path: Path) -> None:
    """Without peers from the index: our rows, plain hooks, and the peers that said why they did not run."""
    small = ["--pictures", "16", "--world", "1024", "--repeats", "1", "--peers", "delphi", "transformer_lens"]
    script = [sys.executable, str(BENCHMARKS / "peers.py"), *small]
    given = ["--given", str(tmp_path / "given"), "--envs", str(tmp_path / "envs"), "--results", str(tmp_path)]
    done = subprocess.run([*script, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    tables = [SimpleNamespace(**t) for t in json.loads((tmp_path / "peers.json").read_text())["tables"]]
    *counts, names, why = (len(t.rows) for t in tables)
    assert (counts, why) == ([2, 1, 1, 1, 2], 2)
    assert names >= 5  # one per namer of ours
    assert {row[0] for row in tables[-2].rows} == {"cliplens"}
    assert {row[0] for row in tables[-1].rows} == {"delphi", "transformer_lens"}
