"""The commands under trial, each with the folder it starts from and the command that goes on after a fault."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from faults.support import SMALL, cliplens, content, counted

PICTURES = 96
Arguments = Callable[["Place"], tuple[object, ...]]


@dataclass(frozen=True)
class Trial:
    """One command."""

    name: str
    arguments: Arguments
    again: Arguments
    """What is entered after a fault."""
    finished: bool
    """Whether it starts from a finished run, rather than from nothing."""


class Place:
    """The folders of the trials: `work` is where commands write; what they start from is copied into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work, self.run, self.out = path / "work", path / "work" / "run", path / "work" / "out"
        self._whole: dict[str, tuple[dict[str, str], list[str]]] = {}

    @cached_property
    def pairs(self) -> Path:
        """A table of pictures of the embedded world, one of them unreadable."""
        from cliplens.pairs import open_image
        from cliplens.world import world_pairs

        folder = self.path / "pairs"
        folder.mkdir()
        with (folder / "pairs.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "caption"])
            for number, pair in enumerate(world_pairs(PICTURES, seed=3)):
                open_image(pair).save(folder / f"{number}.png")
                writer.writerow([f"{number}.png", pair.caption])
        (folder / "7.png").write_bytes(b"no picture")
        return folder / "pairs.csv"

    @cached_property
    def finished(self) -> Path:
        """A finished run with everything later commands write into it."""
        self.clear()
        for trial in (RUN, *RESULTS):
            ended = cliplens(*trial.arguments(self))
            assert ended.code == 0, ended.said
        shutil.copytree(self.work, self.path / "finished")
        shutil.copytree(self.run / "sae", self.path / "sae")
        return self.path / "finished"

    def clear(self) -> None:
        """Empty the folder of work."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def start(self, trial: Trial) -> None:
        """Put what a command starts from into the folder of work."""
        start = self.finished
        shutil.rmtree(self.work, ignore_errors=True)
        if trial.finished:
            shutil.copytree(start, self.work)
        else:
            self.work.mkdir()

    def whole(self, trial: Trial) -> tuple[dict[str, str], list[str]]:
        """Return the files an undisturbed command leaves, and the changes of files it makes."""
        if trial.name not in self._whole:
            self.start(trial)
            ledger = self.path / "ledger"
            ledger.unlink(missing_ok=True)
            ended = cliplens(*trial.arguments(self), watch=counted(self.work, ledger))
            assert ended.code == 0, ended.said
            self._whole[trial.name] = content(self.work), ledger.read_text().splitlines()
        return self._whole[trial.name]

    def leftovers(self) -> list[str]:
        """Hidden files and folders in the folder of work."""
        return sorted(p.name for p in self.work.rglob(".*"))


def _job(*words: str, resume: bool = False) -> Arguments:
    def arguments(place: Place) -> tuple[object, ...]:
        rest = ("--pairs", place.pairs, "--out", place.run, *(["--resume"] if resume else []))
        return (words[0], *(SMALL[:2] if words[0] in ("harvest", "score") else SMALL), *words[1:], *rest)

    return arguments


def _on_run(*words: str, out: str | None = None) -> Arguments:
    def arguments(place: Place) -> tuple[object, ...]:
        named = [place.run if word == "RUN" else word for word in words]
        return (*named, *(["--out", place.out / out] if out else []))

    return arguments


def _score(resume: bool) -> Arguments:
    return lambda place: (*_job("score", resume=resume)(place), "--sae", place.path / "sae")


def _twice(name: str, arguments: Arguments) -> Trial:
    return Trial(name, arguments, arguments, finished=True)


RUN = Trial("run", _job("run"), _job("run", resume=True), finished=False)
RESULTS = (
    _twice("steer", _on_run("steer", "RUN", "--edit", "3=+4", "--dose", "0,2", "--pairs", "2")),
    _twice("fidelity", _on_run("fidelity", "RUN", "--pairs", "16")),
    _twice("causal", _on_run("causal", "RUN", "--latents", "1,2", "--pairs", "16", "--random", "2")),
    _twice("report --rate", _on_run("report", "RUN", "--rate")),
    _twice("report --folder", _on_run("report", "RUN", "--folder")),
    _twice("report", _on_run("report", "RUN")),
)
"""Commands that write results into a finished run."""
EXPORTS = (
    _twice("export table", _on_run("export", "table", "RUN", out="latents.csv")),
    _twice("export huggingface", _on_run("export", "huggingface", "RUN", out="hub")),
    _twice("export neuronpedia", _on_run("export", "neuronpedia", "RUN", out="neuronpedia")),
)
JOBS = (
    RUN,
    Trial("harvest", _job("harvest"), _job("harvest", resume=True), finished=False),
    Trial("train", _job("train"), _job("train", resume=True), finished=False),
    Trial("score", _score(False), _score(True), finished=False),
    Trial(
        "run --namer",
        _job("run", "--namer", "decoder", resume=True),
        _job("run", "--namer", "decoder", resume=True),
        finished=True,
    ),
    Trial(
        "run --k",
        _job("run", "--k", "3", resume=True),
        _job("run", "--k", "3", resume=True),
        finished=True,
    ),
)
TRIALS = (*JOBS, *RESULTS, *EXPORTS)
