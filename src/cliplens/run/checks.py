"""Check all settings of a run before the first pair is read and before anything is written."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cliplens import api, registry
from cliplens.contracts import Judge, Namer
from cliplens.errors import InputError, MachineError, MismatchError
from cliplens.files import sha256_of
from cliplens.hooked import HookedCLIP
from cliplens.keys import pair_keys
from cliplens.pairs import Pairs
from cliplens.run.degenerate import check_enough
from cliplens.run.dictionary import default_width, planned_samples, training_config
from cliplens.run.embeddings import embeddings_of
from cliplens.run.given import open_given
from cliplens.run.harvesting import harvest_plan
from cliplens.run.opened import asked_pairs
from cliplens.run.scoring import samples_of
from cliplens.run.targets import label_of
from cliplens.sae import Dictionary, located
from cliplens.sae.compatibility import check_compatible
from cliplens.settings import Settings
from cliplens.store import Embeddings
from cliplens.store.embeddings import EmbeddingsReader
from cliplens.store.plan import Plan

_FLOAT = 4
_ROW, _TOPS, _THUMBNAIL, _PICTURES = 1000, 3600, 5000, 24_000_000
"""Bytes of a row of the latent table, of the top samples of a latent, of a thumbnail, of all pictures of a report."""
_SHOWN = 20
"""Thumbnails of a latent, at most."""


@dataclass(frozen=True)
class Checked:
    """A run whose settings passed all checks, with the objects that the checks opened."""

    settings: Settings
    clip: HookedCLIP | Embeddings
    pairs: Pairs
    harvest: Plan
    """Plan of the harvest."""
    dictionary: Dictionary | None
    """The dictionary given with --sae; None if one is trained."""
    judge: Judge | None
    samples: int
    """Number of rows to train on."""
    bytes: Mapping[str, int]
    """Estimated number of bytes that each step writes."""
    inputs: Mapping[str, str]
    """Hash of each input from outside the folder: `pairs`, `model`, and the files that options name."""


def check(settings: Settings, until: str = "report") -> Checked:
    """Check the settings of a run against the machine, the installed plugins, the files, the model and the pairs.

    Raises:
        CliplensError: a setting cannot be used; the first one found is named.
    """
    _check_device(settings.device)
    if settings.image_root is not None and not Path(settings.image_root).expanduser().is_dir():
        raise InputError(
            expected="a folder of images for --image-root", found=f"none at {settings.image_root}", fix="check the path"
        )
    namer = registry.find("namers", settings.namer)
    _check_judge_name(settings.judge)
    check_vocabulary(settings.vocabulary)
    given = None
    if settings.sae is not None:
        given, settings = open_given(settings)
    elif until != "harvest":
        training_config(settings, d_in=1_000_000)  # the architecture and its fields, before the model is loaded
    clip = open_model(settings)
    if given is not None and isinstance(clip, HookedCLIP):
        given.check(clip, settings.sites)
    elif given is not None and isinstance(clip, Embeddings):
        check_compatible(None, given.d_in, clip.identity, EmbeddingsReader(clip, settings.sites).widths)
    pairs = asked_pairs(settings)
    if until != "harvest":
        check_enough(pair_keys(pairs.ids), settings)
    if settings.target is not None:
        label_of(settings)
    made = namer.make(Namer)
    judge = None if settings.judge is None else registry.judge(settings.judge)
    if judge is not None:
        _probe_judge(judge, pairs, settings)
    planned = harvest_plan(clip, pairs, settings)
    inputs = _inputs(settings, clip, pairs) | _namer_inputs(made)
    return _checked(Checked(settings, clip, pairs, planned, given, judge, 0, {}, inputs), until)


def check_another(checked: Checked, settings: Settings, planned: Plan, until: str = "report") -> Checked:
    """Check settings that ask for another dictionary of the same pairs, model, judge and namer.

    Args:
        checked: settings that passed all checks.
        settings: settings that differ in the dictionary, its hook or its seed only.
        planned: the plan of the harvest of their hook.
        until: last step of the run.

    Raises:
        CliplensError: a setting cannot be used.
    """
    return _checked(replace(checked, settings=settings, harvest=planned), until)


def _checked(checked: Checked, until: str) -> Checked:
    """Check the width of the hook and the training config; return the number of rows and the bytes to write."""
    settings, planned, given = checked.settings, checked.harvest, checked.dictionary
    widths = {str(site.site): site.schema.d_in for site in planned.sites if site.site in settings.sites}
    if len(set(widths.values())) > 1:
        raise MismatchError(
            expected="sites of equal width, for one dictionary",
            found=", ".join(f"{s}: {w}" for s, w in widths.items()),
            fix="choose hook_embedding or hook_projected, which have one width, or one tower with --tower",
        )
    skipped = given is not None or until == "harvest"
    rows, d_in = rows_planned(settings, planned, len(checked.pairs)), next(iter(widths.values()))
    samples = 0 if skipped else _check_training(settings, d_in, rows)
    d_sae = settings.d_sae or (default_width(d_in, rows, settings.k) if given is None else given.d_sae)
    return replace(checked, samples=samples, bytes=_bytes(settings, planned, d_in, d_sae))


def open_model(settings: Settings) -> HookedCLIP | Embeddings:
    """Open the model of the settings, or the embeddings in place of a model."""
    if settings.embeddings:
        return embeddings_of(settings)
    return api.load(settings.model, settings.pretrained, device=settings.device, dtype=settings.dtype)


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MachineError(
            expected="a device of this machine for --device",
            found=f"{device!r} ({str(error).splitlines()[0].rstrip('.')})",
            fix="remove --device, or pass --device cpu",
        ) from error


def _check_judge_name(judge: str | None) -> None:
    if judge is not None:
        registry.find("judges", judge.partition(":")[0])


def check_vocabulary(path: str | None) -> None:
    """Check that a file of `--vocabulary` holds words.

    Raises:
        InputError: it is no text, or holds none.
    """
    if path is None:
        return
    try:
        words = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(
            expected="a UTF-8 text file for --vocabulary", found=f"{path}: {error.reason}", fix="save the file as UTF-8"
        ) from error
    if not words:
        raise InputError(
            expected="one word or phrase per line in --vocabulary",
            found=f"nothing in {path}",
            fix="pass another file",
        )


def rows_planned(settings: Settings, planned: Plan, n_pairs: int) -> int:
    """Return the number of rows to train on, if every pair can be used and has as many positions as it may have."""
    sites = [site for site in planned.sites if site.site in settings.sites]
    return int(n_pairs * (1 - settings.held_out)) * sum(site.schema.context_size for site in sites)


def _check_training(settings: Settings, d_in: int, rows: int) -> int:
    """Check the training config at the width of the hook; return the number of samples to train on."""
    training_config(settings, d_in, rows)
    samples = planned_samples(settings, rows)
    if samples < settings.batch_size:
        raise InputError(
            expected=f"at least one batch of {settings.batch_size} rows to train on",
            found=f"--samples {samples}",
            fix="raise --samples, or lower --batch-size",
        )
    return samples


def _probe_judge(judge: Judge, pairs: Pairs, settings: Settings) -> None:
    """Check that the judge can embed the first readable pair."""
    for index in range(min(len(pairs), 64)):
        pair = pairs[index]
        try:
            samples = samples_of([pair], settings.modalities != "text", settings.modalities != "image")
        except InputError:
            continue
        embedded = judge.embed(*samples, [pair.id])
        if embedded.image is None and embedded.text is None:
            raise InputError(
                expected=f"images or captions that the judge {judge.name!r} embeds",
                found="pairs without them",
                fix="pass --images FOLDER or --captions FILE, or leave --judge out",
            )
        return


def _bytes(settings: Settings, planned: Plan, d_in: int, d_sae: int) -> dict[str, int]:
    """Estimate the bytes that each step writes.

    Activations; weights with their folded copies, and one checkpoint; thumbnails, top samples and a row of the table
    for each latent; the table with names; the report.
    """
    weights = _FLOAT * 2 * d_in * d_sae
    pictures = _THUMBNAIL * min(planned.n_pairs, _SHOWN * d_sae) if settings.modalities != "text" else 0
    out = {"harvest": planned.bytes_per_pair * planned.n_pairs}
    if settings.sae is None:
        out["train"] = weights * (1 + len(settings.sides)) + 3 * weights
    out["score"] = pictures + (_TOPS + _ROW) * d_sae
    out["name"] = _ROW * d_sae
    out["report"] = min(2 * pictures, _PICTURES) + 2 * _ROW * d_sae
    return out


def _inputs(settings: Settings, clip: HookedCLIP | Embeddings, pairs: Pairs) -> dict[str, str]:
    found = {"pairs": pairs.sha256, "model": model_hash(asdict(clip.identity))}
    if settings.sae is not None:
        found["dictionary"] = hash_of_files(located(settings.sae))
    if settings.vocabulary is not None:
        found["vocabulary"] = hash_of_files(Path(settings.vocabulary))
    kind, _, source = (settings.judge or "").partition(":")
    if kind == "file" and source:
        found["judge"] = hash_of_files(Path(source))
    return found


def _namer_inputs(namer: Namer) -> dict[str, str]:
    values = {name: os.environ.get(name) for name in namer.environment}
    hashed = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return {"model of the namer": hashed} if values else {}


def model_hash(identity: Mapping[str, Any]) -> str:
    """Return one hash of a model's weights, preprocessing, tokenizer and adapters."""
    names = ("weights_sha256", "preprocess_sha256", "tokenizer_sha256", "adapters")
    return hashlib.sha256(json.dumps([identity.get(name) for name in names]).encode()).hexdigest()


def hash_of_files(path: Path) -> str:
    """Return one hash of a file, or of all files in a folder with their names."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{p.relative_to(path).as_posix()} {sha256_of(p)}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()
