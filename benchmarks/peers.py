"""Other libraries beside this one: same rows, same random weights, same pictures, each in an environment of its own.

    python -m benchmarks peers [--peers overcomplete nnsight ...] [--envs FOLDER]

Each environment is made by `venv` and `pip` in `--envs` and kept. It sees the packages of the environment that runs the
script, so torch is not installed again, and it keeps that torch; a package that a peer wants in another version is
installed for it alone. A peer that cannot be installed or fails is listed with the reason. `--peer-path NAME=FOLDER`
installs a peer from a folder.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from _bench import Bench, Estimate, bench
from cliplens.run import Settings, by_modality, run
from cliplens.runfolder import RunFolder
from cliplens.store import Cache

SCRIPTS = Path(__file__).parent / "_peers"


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    install: str | None
    """Requirement for pip; None for a package of this environment."""
    cases: tuple[str, ...]
    """Scripts of `_peers` that run it."""
    missing: str = ""
    """Why no case runs it, where none does."""


PEERS = (
    Peer("cliplens", None, ("training", "forward")),
    Peer("sae_lens", None, ("training",)),
    Peer("plain_hooks", None, ("forward",)),
    Peer("overcomplete", "overcomplete", ("training",)),
    Peer("dictionary_learning", "dictionary-learning", ("training",)),
    Peer("sparsify", "eai-sparsify", ("training",)),
    Peer("nnsight", "nnsight", ("forward",)),
    Peer("vit_prisma", "vit-prisma", (), "the package index has 0.1.4 of 2024, without towers of open_clip"),
    Peer("saev", "saev", (), "reads images of its own data sets and trains from its own shards only"),
    Peer("sae-for-vlm", None, (), "not on the package index; its loop for MS is in benchmarks/monosemanticity.py"),
    Peer("clip-retrieval", "clip-retrieval", (), "loads weights from a hub; no way to pass a model was found"),
    Peer("delphi", None, (), "not on the package index; names latents of language models"),
)


class PeerError(Exception):
    """A peer that could not be installed or run; the message is the last line it printed."""


def environment(peer: Peer, folder: Path, given: str | None) -> Path:
    """Return the Python of the environment of a peer, made if it is missing.

    Raises:
        PeerError: pip could not install it.
    """
    if peer.install is None and given is None:
        return Path(sys.executable)
    home = folder / peer.name
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    own = sysconfig.get_paths(vars={"base": str(home)})["purelib"]
    (Path(own) / "_outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    kept = home / "constraints.txt"
    kept.write_text("".join(f"{name}=={version(name)}\n" for name in ("torch", "torchvision")))
    _run([str(python), "-m", "pip", "install", "-q", "-c", str(kept), given or str(peer.install)], 1200)
    (home / "ready").touch()
    return python


def measured(peer: Peer, case: str, python: Path, *options: str) -> dict[str, Any]:
    """Return what the script of a case measured.

    Raises:
        PeerError: it failed.
    """
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "found.json"
        _run([str(python), str(SCRIPTS / f"{case}.py"), peer.name, *options, "--out", str(out)], 1800)
        return dict(json.loads(out.read_text()))


def _run(command: list[str], limit: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        raise PeerError(f"took more than {limit} seconds") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PeerError(lines[-1].strip()[:200] if lines else f"exit code {done.returncode}")


def rows_of_the_world(folder: Path, pairs: int) -> Path:
    """Write centred activations of the embedded world, images and captions together, for training and for testing."""
    made = run(Settings(pairs=f"world:{pairs}"), folder / "run", until="harvest", resume=True)
    cache = Cache.open(RunFolder(made.path).activations)
    (acts,) = cache.batches(**by_modality(Settings(pairs="world:1").sites), batch_size=10**9)
    assert acts.image is not None
    assert acts.text is not None
    sides = [x.float().numpy() for x in (acts.image, acts.text)]
    rows = np.concatenate([x - x.mean(0) for x in sides])
    order = np.random.default_rng(0).permutation(len(rows))
    held = len(rows) // 5
    np.savez(folder / "rows.npz", test=rows[order[:held]], train=rows[order[held:]])
    return folder / "rows.npz"


def training(b: Bench, peers: dict[str, Path], rows: Path, repeats: int) -> None:
    """Train the same dictionary with every peer."""
    columns = {"peer": "", "version": "", "ms per step": ".2f", "explained variance": ".3f", "L0": ".2f", "dead": ".3f"}
    b.table("Training a top-k dictionary (512 latents, k 8, 400 steps of 256 rows of width 64)", columns)
    for peer in PEERS:
        if peer.name not in peers or "training" not in peer.cases:
            continue
        try:
            found = [measured(peer, "training", peers[peer.name], "--rows", str(rows)) for _ in range(repeats)]
        except PeerError as error:
            FAILURES[peer.name] = f"training: {error}"
            continue
        times = sorted(f["ms_per_step"] for f in found)
        first = found[0]
        b.row(
            peer.name, first["version"], Estimate(float(np.median(times)), times[0], times[-1]),
            first["explained_variance"], first["l0"], first["dead"],
        )  # fmt: skip


def forward(b: Bench, peers: dict[str, Path], model: str) -> None:
    """Read every block of one ViT with every peer."""
    columns = {"peer": "", "version": "", "times the model alone": ".3f", "largest difference": ".1e"}
    b.table(f"Reading the stream after every block of {model}, 8 pictures", columns)
    for peer in PEERS:
        if peer.name not in peers or "forward" not in peer.cases:
            continue
        try:
            found = measured(peer, "forward", peers[peer.name], "--model", model)
        except PeerError as error:
            FAILURES[peer.name] = f"forward: {error}"
            continue
        low, high = np.quantile(found["ratios"], [0.1, 0.9])
        b.row(
            peer.name, found["version"], Estimate(found["ratio"], float(low), float(high)), found["largest_difference"]
        )


FAILURES: dict[str, str] = {}


def environments(names: list[str], folder: Path, paths: dict[str, str]) -> dict[str, Path]:
    """Return the Python of every peer that can be installed; the others are noted."""
    found = {}
    for peer in PEERS:
        if names and peer.name not in (*names, "cliplens", "plain_hooks"):
            continue
        if peer.missing and peer.name not in paths:
            FAILURES[peer.name] = peer.missing
            continue
        try:
            found[peer.name] = environment(peer, folder, paths.get(peer.name))
        except PeerError as error:
            FAILURES[peer.name] = f"not installed: {error}"
    return found


if __name__ == "__main__":
    options = {
        "peers": ([], "names of peers; all by default"),
        "envs": ("peer-environments", "folder of the environments"),
        "peer_path": ([], "NAME=FOLDER of peers to install from a folder"),
        "model": "ViT-B-32",
        "world": 4096,
        "repeats": (3, "trainings of each peer; the smallest and largest time is the interval"),
    }
    with bench(__file__, __doc__, **options) as b, tempfile.TemporaryDirectory() as place:
        paths = dict(given.split("=", 1) for given in b.args.peer_path)
        found = environments(b.args.peers, Path(b.args.envs).resolve(), paths)
        training(b, found, rows_of_the_world(Path(place), b.args.world), b.args.repeats)
        forward(b, found, b.args.model)
        b.table("Peers that did not run, or not in every table", {"peer": "", "why": ""})
        for name, why in FAILURES.items():
            b.row(name, why)
