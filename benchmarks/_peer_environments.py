"""The peers, and the environment of each: made once, kept, and never mixed with the one that runs the script."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "_peers"
_CLONE_SECONDS, _INSTALL_SECONDS, _RUN_SECONDS = 300, 1800, 1800


class PeerError(Exception):
    """A peer that could not be installed or run; the message is the last line it printed."""


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    cases: tuple[str, ...] = ()
    """Scripts of `_peers` that run it."""
    packages: tuple[str, ...] = ()
    """Requirements for pip; none for a peer that runs in the environment of this script."""
    source: str = ""
    """Git address of a peer whose package index has no release of this code."""
    commit: str = ""
    """The commit for which the cases were written."""
    installs: bool = False
    """Whether the source is installed by pip; otherwise its modules are read where they lie."""
    why: str = ""
    """Why it is in no table, or not in one where it might be expected."""


PEERS = (
    Peer("cliplens", ("forward", "harvest", "training", "ms", "fidelity")),
    Peer("plain_hooks", ("forward",)),
    Peer("open_clip", ("forward",)),
    Peer("sae_lens", ("forward", "harvest", "training")),
    Peer("transformer_lens", ("forward",)),
    Peer("nnsight", ("forward",), ("nnsight",)),
    Peer("overcomplete", ("training", "fidelity"), ("overcomplete", "matplotlib<3.9", "numpy<2")),
    Peer("dictionary_learning", ("training",), ("dictionary-learning",)),
    Peer("sparsify", ("training",), ("eai-sparsify",)),
    Peer(
        "saev",
        ("forward",),
        ("saev",),
        why="harvest: the case for its shards has not been run to its end yet; training: release 0.1.0 has a ReLU "
        "dictionary only, and the top-k one of its repository needs Python 3.12",
    ),
    Peer("clip_retrieval", ("harvest",), ("clip-retrieval", "setuptools<70")),
    Peer("visaebench", ("harvest", "ms", "fidelity"), ("visaebench",)),
    Peer(
        "vit_prisma",
        ("forward", "harvest", "training"),
        source="https://github.com/Prisma-Multimodal/ViT-Prisma",
        commit="aa5ff6a",
        installs=True,
    ),
    Peer(
        "sae_for_vlm",
        ("training", "ms"),
        ("nnsight<0.4",),
        source="https://github.com/ExplainableML/sae-for-vlm",
        commit="69e211d",
    ),
    Peer(
        "clip_dissect",
        ("names",),
        ("matplotlib",),
        source="https://github.com/Trustworthy-ML-Lab/CLIP-dissect",
        commit="21e7697",
    ),
    Peer("delphi", why="names: its explainers ask a language model, and without weights there is none to ask"),
)


@dataclass(frozen=True)
class Environment:
    """Where a peer runs."""

    python: Path
    source: Path | None = None

    @property
    def commit(self) -> str:
        """The commit of the source; "" without one, or where its folder is no clone."""
        if self.source is None or not (self.source / ".git").exists():
            return ""
        asked = ["git", "-C", str(self.source), "log", "-1", "--format=%h of %cs"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def environment(peer: Peer, folder: Path, given: Path | None) -> Environment:
    """Return the environment of a peer, made if it is missing.

    It sees the packages of the environment that runs this script, so torch is not installed again, and it keeps that
    torch. A package that the peer wants in another version is installed for it alone.

    Args:
        peer: the library.
        folder: folder of all environments; they stay there.
        given: a folder with the source of the peer, from `--peer-path`.

    Raises:
        PeerError: its source is not there, or pip could not install it.
    """
    source = given if given is not None or not peer.source else cloned(peer, folder / "sources" / peer.name)
    if not peer.packages and not peer.installs:
        return Environment(Path(sys.executable), source)
    home = folder / peer.name
    python = home / "bin" / "python"
    wanted = [str(source)] if source is not None and peer.installs else list(peer.packages)
    if not (home / "ready").exists() or (home / "ready").read_text() != " ".join(wanted):
        _make(home, python, wanted)
        (home / "ready").write_text(" ".join(wanted))
    return Environment(python, source)


def _make(home: Path, python: Path, wanted: list[str]) -> None:
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    own = sysconfig.get_paths(vars={"base": str(home)})["purelib"]
    (Path(own) / "_outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    kept = home / "constraints.txt"
    kept.write_text("".join(f"{name}=={version(name)}\n" for name in ("torch", "torchvision")))
    _run([str(python), "-m", "pip", "install", "-q", "-c", str(kept), *wanted], _INSTALL_SECONDS)


def cloned(peer: Peer, folder: Path) -> Path:
    """Return the source of a peer at its commit, cloned if it is missing.

    Raises:
        PeerError: it could not be cloned.
    """
    if not (folder / ".git").exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run(["git", "clone", "-q", peer.source, str(folder)], _CLONE_SECONDS)
            _run(["git", "-C", str(folder), "checkout", "-q", peer.commit], _CLONE_SECONDS)
        except PeerError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise PeerError(f"no copy of {peer.source} (--peer-path {peer.name}=FOLDER): {error}") from None
    return folder


def measured(
    peer: Peer, case: str, where: Environment, given: Path, *options: str, repetition: int = 0
) -> dict[str, Any]:
    """Return what the script of a case measured in the environment of a peer; kept in `given/found`, failures too.

    Raises:
        PeerError: it failed, now or the last time.
    """
    out = given / "found" / f"{case}-{peer.name}-{repetition}.json"
    failed = out.with_suffix(".failed")
    out.parent.mkdir(exist_ok=True)
    if failed.exists():
        raise PeerError(failed.read_text())
    if not out.exists():
        command = [str(where.python), str(SCRIPTS / f"{case}.py"), peer.name, "--given", str(given), "--out", str(out)]
        if where.source is not None:
            command += ["--path", str(where.source)]
        try:
            _run([*command, *options], _RUN_SECONDS)
        except PeerError as error:
            failed.write_text(str(error))
            raise
    found = dict(json.loads(out.read_text()))
    found["version"] = " ".join(part for part in (found["version"], where.commit) if part)
    return found


def _run(command: list[str], limit: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        raise PeerError(f"took more than {limit} seconds") from None
    except OSError as error:
        raise PeerError(str(error)) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PeerError(lines[-1].strip()[:240] if lines else f"exit code {done.returncode}")
