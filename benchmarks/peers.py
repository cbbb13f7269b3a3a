"""Other libraries beside this one: same weights, same pictures, same rows, each in an environment of its own.

    python -m benchmarks peers [--peers overcomplete nnsight ...] [--envs FOLDER] [--peer-path NAME=FOLDER ...]

Each environment is made by `venv` and `pip` in `--envs` and kept. It sees the packages of the environment that runs the
script, so torch is not installed again, and it keeps that torch; a package that a peer wants in another version is
installed for it alone. A peer without a release on the package index is cloned at one commit, or taken from
`--peer-path NAME=FOLDER`. A peer that cannot be installed, or fails, is listed with what it said.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from _bench import Bench, Estimate, bench, versions
from _peer_environments import PEERS, Environment, Peer, PeerError, environment, measured
from cliplens.naming import words
from cliplens.statistics import wilson_interval

ALWAYS = ("cliplens", "plain_hooks")
Found = dict[str, Environment]


class Failures(dict[str, str]):
    """The error messages of peers that failed, by peer and table."""

    def note(self, peer: str, said: str) -> None:
        """Add what a peer said to what it said before."""
        self[peer] = "; ".join(part for part in (self.get(peer, ""), said) if part)


def environments(names: list[str], folder: Path, paths: dict[str, Path], failures: Failures) -> Found:
    """Return the environment of every peer that can be installed; the others are noted."""
    found: Found = {}
    for peer in PEERS:
        if names and peer.name not in (*names, *ALWAYS):
            continue
        if peer.why:
            failures.note(peer.name, peer.why)
        if not peer.cases:
            continue
        try:
            found[peer.name] = environment(peer, folder, paths.get(peer.name))
        except PeerError as error:
            failures.note(peer.name, f"not installed: {error}")
    return found


def measurements(
    case: str, found: Found, given: Path, failures: Failures, repetition: int = 0
) -> Iterator[tuple[Peer, dict[str, Any]]]:
    """Run a case with every peer that has it; those that fail are noted."""
    for peer in PEERS:
        if peer.name not in found or case not in peer.cases:
            continue
        try:
            yield peer, measured(peer, case, found[peer.name], given, repetition=repetition)
        except PeerError as error:
            failures.note(peer.name, f"{case}: {error}")


def spread(values: list[float]) -> Estimate:
    """Return the median with the smallest and the largest value."""
    return Estimate(float(np.median(values)), min(values), max(values))


def forward(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Read every block of one ViT with every peer."""
    columns = {"peer": "", "version": "", "times the model alone": ".3f", "largest difference": ".1e"}
    b.table(f"Reading the stream after every block of {b.args.model}, 8 pictures", columns)
    for peer, row in measurements("forward", found, given, failures):
        low, high = np.quantile(row["ratios"], [0.1, 0.9])
        b.row(peer.name, row["version"], Estimate(row["ratio"], float(low), float(high)), row["largest_difference"])


def harvest(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Read a folder of pictures with every peer and keep activations."""
    columns = {
        "peer": "", "version": "", "keeps": "", "times the forwards alone": ".2f", "largest difference": ".1e"
    }  # fmt: skip
    b.table(f"Reading {b.args.pictures} PNG files through {b.args.model} and keeping activations", columns)
    for peer, row in measurements("harvest", found, given, failures):
        b.row(peer.name, row["version"], row["kept"], spread(row["ratios"]), row["largest_difference"])


def training(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Train the same dictionary with every peer."""
    columns = {"peer": "", "version": "", "ms per step": ".2f", "explained variance": ".3f", "L0": ".2f", "dead": ".3f"}
    b.table("Training a top-k dictionary (512 latents, k 8, 400 steps of 256 rows of width 64)", columns)
    rounds: dict[str, list[dict[str, Any]]] = {}
    for repetition in range(b.args.repeats):
        for peer, row in measurements("training", found, given, failures, repetition):
            rounds.setdefault(peer.name, []).append(row)
    for name, (first, *others) in rounds.items():
        times = spread([row["ms_per_step"] for row in (first, *others)])
        b.row(name, first["version"], times, first["explained_variance"], first["l0"], first["dead"])


def monosemanticity(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Score the same latents with every peer."""
    with np.load(given / "ms.npz") as held:
        pictures, latents = held["acts"].shape
    columns = {"peer": "", "version": "", "CPU seconds": ".3g", "mean": ".4f", "largest difference": ".1e"}
    b.table(f"MonoSemanticity of {latents} latents on {pictures} pictures", columns)
    for peer, row in measurements("ms", found, given, failures):
        b.row(peer.name, row["version"], row["seconds"], row["mean"], row["largest_difference"])


def fidelity(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Score the same dictionary on rows with an offset."""
    offsets: list[float] = []
    rows = []
    for peer, row in measurements("fidelity", found, given, failures):
        offsets = row["offsets"]
        found_here = [v if np.isfinite(v) else str(v) for v in row["explained_variance"]]
        rows.append((peer.name, row["version"], *found_here))
        defined = row["definition"]
    if not rows:
        return
    heads = dict.fromkeys((f"offset {offset}" for offset in offsets), ".4f")
    b.table("Explained variance of one dictionary on rows with a common offset", {"peer": "", "version": "", **heads})
    b.row("definition, float64", "", *defined)
    for cells in rows:
        b.row(*cells)


def naming(b: Bench, found: Found, given: Path, failures: Failures) -> None:
    """Count the right names from pictures."""
    judge = json.loads((given / "judge.json").read_text())
    columns = {"peer": "", "version": "", "method": "", "right": "", "of": "", "share": ".3f", "unnamed": ""}
    b.table("Names from pictures of latents for factors that captions mention", columns)

    def row(peer: str, version: str, method: str, said: list[str | None]) -> None:
        names = {int(k): set(words(said[int(k)] or "")) for k in judge["right"]}
        right, count = sum(bool(names[int(k)] & set(accepted)) for k, accepted in judge["right"].items()), len(names)
        low, high = wilson_interval(right / count, count)
        share = Estimate(right / count, float(low), float(high))
        b.row(peer, version, method, right, count, share, sum(said[k] is None for k in names))

    for method, said in judge["ours"].items():
        row("cliplens", versions()["cliplens"], method, said)
    for peer, result in measurements("names", found, given, failures):
        for method, best in result["names"].items():
            row(peer.name, result["version"], method, [judge["vocabulary"][w] for w in best["words"]])


TABLES: tuple[Callable[[Bench, Found, Path, Failures], None], ...] = (
    forward, harvest, training, monosemanticity, fidelity, naming
)  # fmt: skip


def cache_folder() -> Path:
    """Return the folder for environments by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cliplens" / "peers"


if __name__ == "__main__":
    options = {
        "peers": ([], "names of peers; all by default"),
        "envs": (None, "folder of the environments; by default the user's cache folder"),
        "peer_path": ([], "NAME=FOLDER of peers whose source is taken from a folder"),
        "given": (None, "folder of what the peers get and what they measured, kept and resumed; by default a new one"),
        "model": "ViT-B-32",
        "pictures": (64, "pictures of the harvest"),
        "world": (4096, "pairs of the embedded world"),
        "repeats": (3, "trainings of each peer; the smallest and largest time is the interval"),
    }
    with bench(__file__, __doc__, **options) as b, tempfile.TemporaryDirectory() as place:
        paths = {k: Path(v).resolve() for k, v in (text.split("=", 1) for text in b.args.peer_path)}
        failures, given = Failures(), Path(b.args.given or place).resolve()
        given.mkdir(parents=True, exist_ok=True)
        found = environments(b.args.peers, Path(b.args.envs or cache_folder()).resolve(), paths, failures)
        if not (given / "judge.json").exists():
            from _peer_data import write_vit, write_world

            write_vit(given, b.args.model, b.args.pictures)
            write_world(given, b.args.world)
        for table in TABLES:
            table(b, found, given, failures)
        b.table("Peers that did not run, or not in a table where they might be expected", {"peer": "", "why": ""})
        for name, why in failures.items():
            b.row(name, why)
