"""The dictionaries to compare: runs, the runs of a sweep, and dictionaries without a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt64

from cliplens.errors import InputError
from cliplens.files import read_json
from cliplens.records import LatentTable
from cliplens.run import OpenedRun, SweepFolder, check_whole, scored_on, training_config
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, located, open_dictionary, sparsity_fields
from cliplens.settings import Settings

_TRAINING = ("architecture", "d_sae", "k", "sparsity", "samples", "batch_size", "lr", "centre", "held_out")
_VARIED = ("model", "hook", "tower", "token", *_TRAINING, "namer", "judge", "pairs", "sae")
"""Settings that make two dictionaries different ones; the seed does not."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One dictionary to compare, and the run whose pairs and activations it is measured on."""

    name: str
    run: OpenedRun
    given: Path | None = None
    """The dictionary, if it is not the run's own."""

    @cached_property
    def asked(self) -> Settings:
        """The settings it is measured with."""
        asked = self.run.asked
        return asked if self.given is None else replace(asked, sae=str(self.given), controls=False)

    @cached_property
    def dictionary(self) -> Dictionary:
        """The dictionary."""
        return self.run.dictionary if self.given is None else open_dictionary(located(self.given))

    @cached_property
    def table(self) -> LatentTable | None:
        """The latent table of its run; None for a dictionary without a run, and where the run was not scored."""
        return self.run.table if self.given is None and self.run.folder.latents.exists() else None

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The headline figures of its run; empty for a dictionary without a run."""
        path = self.run.folder.summary
        return dict(read_json(path)) if self.given is None and path.exists() else {}

    @property
    def seed(self) -> int | None:
        """The seed it was trained with; None if it was given."""
        return None if self.asked.sae is not None else self.asked.seed

    @cached_property
    def basis(self) -> dict[str, str]:
        """Basis of its figures, by name: pairs, hook, judge, ... Figures on another basis are not comparable."""
        found, asked = self.run.folder.read_settings(), self.asked
        model = found.get("model", {})
        own = str(model.get("weights_sha256") or model.get("name") or asked.model)
        return {
            "pairs": str(found.get("pairs", {}).get("sha256") or asked.source),
            "model": own,
            "hook": " and ".join(map(str, asked.sites)),
            "token": asked.token,
            "centring": "centred" if self.dictionary.means is not None else "not centred",
            "judge": asked.judge or f"none, the model {own} itself",
            "namer": asked.namer,
            "vocabulary": asked.vocabulary or "words of the captions",
        }

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that make it another dictionary, by name; defaults as the numbers that they stand for."""
        asked = asdict(self.asked)
        found = {name: asked[name] for name in _VARIED}
        if self.asked.sae is None:
            field = sparsity_fields(self.asked.architecture)[0]
            same = replace(self.asked, d_sae=self.dictionary.d_sae)
            config = training_config(same, self.dictionary.d_in)
            found |= {"d_sae": self.dictionary.d_sae, "k": None if field is None else getattr(config, field)}
        return found

    @cached_property
    def configuration(self) -> str:
        """Everything but the seed that makes it another dictionary. Equal for dictionaries that are reseeds."""
        return repr([*self.settings.items(), sorted(self.basis.items())])

    def holds_out(self, keys: UInt64[np.ndarray, " pair"]) -> Bool[np.ndarray, " pair"]:
        """Return which pairs it was not trained on, as far as is known; all for a given dictionary."""
        return scored_on(self.asked)(keys)


def open_subjects(paths: Sequence[Path], on: Path | None = None) -> list[Subject]:
    """Open run folders, folders of sweeps, and dictionaries.

    Args:
        paths: the folders or files.
        on: a run whose pairs and activations the dictionaries without a run are measured on.

    Raises:
        InputError: there are fewer than two, two are the same, a path is none of these, or a dictionary comes without
            `on`.
        DamagedError: files of a run were altered since they were written.
    """
    found: list[Subject] = []
    basis = None if on is None else OpenedRun(RunFolder.open(on))
    for path in paths:
        if (path / "sweep.toml").exists():
            found += [Subject(run.path.name, OpenedRun(run)) for run in SweepFolder.open(path).runs if _trained(run)]
        elif (path / "run.toml").exists():
            found.append(Subject(path.resolve().name, OpenedRun(RunFolder(path))))
        elif not path.exists():
            raise InputError(
                expected="run folders, folders of sweeps, or dictionaries", found=f"nothing at {path}", fix="check it"
            )
        elif basis is None:
            raise InputError(
                expected="--on RUN, whose pairs and activations a dictionary without a run is measured on",
                found=f"{path} alone, which is no run or sweep: it has no run.toml or sweep.toml",
                fix="pass a run, or for a dictionary add --on with a run at its hook",
            )
        else:
            found.append(Subject(path.resolve().name, basis, path))
    if len(found) < 2:
        raise InputError(
            expected="at least two dictionaries to compare",
            found=f"{len(found)} in {', '.join(map(str, paths))}",
            fix="pass several runs, or the folder of a sweep",
        )
    for subject in found:
        check_whole(subject.run.folder)
    named = _with_different_names(found)
    _check_different(named)
    return named


def _trained(run: RunFolder) -> bool:
    return (run.sae / "cfg.json").exists()


def _check_different(subjects: Sequence[Subject]) -> None:
    """Raise InputError if two dictionaries of one configuration are equal: a copy would count as a second seed."""
    seen: dict[tuple[str, bytes], Subject] = {}
    for subject in subjects:
        decoder = subject.dictionary.decoder.detach().cpu().float().numpy().tobytes()
        first = seen.setdefault((subject.configuration, sha256(decoder).digest()), subject)
        if first is not subject:
            raise InputError(
                expected="different dictionaries",
                found=f"{first.name} and {subject.name}, which are the same",
                fix="pass each dictionary once: a copy is no second seed",
            )


def _with_different_names(found: Sequence[Subject]) -> list[Subject]:
    """Number dictionaries of equal names."""
    names = [s.name for s in found]
    seen: dict[str, int] = {}
    out = []
    for subject in found:
        seen[subject.name] = seen.get(subject.name, 0) + 1
        double = names.count(subject.name) > 1
        out.append(replace(subject, name=f"{subject.name} ({seen[subject.name]})") if double else subject)
    return out


def configurations(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Group dictionaries that differ by their seed only, under a short name that says what varies.

    Dictionaries of the same seed and settings from two folders are one configuration as well. Settings at their default
    are said too. Where settings do not tell two apart, the parts of their basis do, then the names of their folders.
    """
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.configuration, []).append(subject)
    leads = [members[0] for members in groups.values()]
    varying = [n for n in _VARIED if len({repr(s.settings[n]) for s in leads}) > 1 and n != "sae"]
    labels = [_label(lead, varying) for lead in leads]
    for alike in _equal(labels):
        parts = [p for p in leads[0].basis if len({leads[n].basis[p] for n in alike}) > 1]
        for n in alike:
            also = [f"{part} {_short(leads[n].basis[part])}" for part in parts]
            labels[n] = ", ".join([labels[n], *also] if labels[n] else also)
    labels = [label or lead.name for label, lead in zip(labels, leads, strict=True)]
    for alike in _equal(labels):
        for n in alike:
            labels[n] = f"{labels[n]}, {leads[n].name}"
    return dict(zip(labels, groups.values(), strict=True))


def _equal(labels: Sequence[str]) -> list[list[int]]:
    """Return the places of labels that occur more than once, label by label."""
    places = [[n for n, other in enumerate(labels) if other == label] for label in dict.fromkeys(labels)]
    return [held for held in places if len(held) > 1]


def _label(subject: Subject, varying: Sequence[str]) -> str:
    """Return what varies, in words; "" where no setting does."""
    if subject.given is not None:
        return subject.name
    counted = subject.settings.get("k") is not None
    said = [(name.replace("_", " "), subject.settings[name]) for name in varying if name != "k" or counted]
    parts = [
        str(value) if name in ("architecture", "hook", "model") else f"{name} {'default' if value is None else value}"
        for name, value in said
    ]
    return ", ".join(parts)


def _short(value: str) -> str:
    """Return a part of a basis; of a hash, its beginning."""
    return value[:8] if len(value) == 64 and set(value) <= set("0123456789abcdef") else value
