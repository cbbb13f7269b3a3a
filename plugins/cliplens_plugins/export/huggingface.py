"""Export a run as a folder for the Hugging Face hub, in the layout that `SAE.from_pretrained(repo, sae_id)` reads.

image/, text/   SAELens folders of the dictionary for raw activations of one tower
shared/         SAELens folder of the dictionary for centred activations, with the modality means
latents.parquet, exemplars/, README.md
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, StrictUndefined

from cliplens.errors import InputError, MissingExtraError
from cliplens.files import atomic_folder, read_json
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, verify_folder
from cliplens_plugins.export.card import CARD
from cliplens_plugins.export.local_paths import without_local_paths

_PARTS = ("image", "text")


def export_huggingface(run: RunFolder, out: Path, *, pictures: bool = True) -> Path:
    """Write the dictionary, the table and the exemplars of a run into `out`, with a model card. Return `out`.

    Nothing is uploaded. The dictionary is opened and written again, so a damaged one is refused. Absolute local paths
    are removed from every file, and links are not followed.

    Args:
        run: a finished run that trained a dictionary.
        out: folder to create; must be missing or empty.
        pictures: also write the exemplars' thumbnails. Set it to False if you may not share the images.

    Raises:
        InputError: the run holds no dictionary, or `out` is not empty.
        DamagedError: a file of the dictionary is altered, truncated or unreadable. Nothing is written.
    """
    if not (run.sae / "cfg.json").exists():
        raise InputError(
            expected=f"a dictionary in {run.sae}",
            found="none",
            fix="train one with cliplens run, or share the folder that was given to --sae",
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(
            expected=f"{out} to be missing or empty", found="files in it", fix="choose another folder with --out"
        )
    verify_folder(run.sae)
    dictionary = _shareable(Dictionary.load(run.sae))
    with atomic_folder(out.resolve()) as partial:
        _write(run, dictionary, partial, pictures)
    return out


def _write(run: RunFolder, dictionary: Dictionary, out: Path, pictures: bool) -> None:
    dictionary.save(out / "shared")
    ids = [name for name in _PARTS if (out / "shared" / name / "cfg.json").exists()]
    for name in ids:
        (out / "shared" / name).rename(out / name)
    if run.latents.exists():
        shutil.copyfile(run.latents, out / run.latents.name)
    if run.summary.exists():
        summary = without_local_paths(read_json(run.summary))
        (out / run.summary.name).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (out / run.toml.name).write_text(tomli_w.dumps(without_local_paths(run.read_settings())), encoding="utf-8")
    if pictures and run.exemplars.exists():
        shutil.copytree(run.exemplars, out / "exemplars", ignore=_links_and_leftovers)
    (out / "README.md").write_text(model_card(run, [*ids, "shared"]), encoding="utf-8")


def _shareable(dictionary: Dictionary) -> Dictionary:
    """Return the dictionary without local paths in its metadata."""
    metadata = dictionary.sae.cfg.metadata
    for name, value in vars(metadata).items():
        setattr(metadata, name, without_local_paths(value))
    provenance = dictionary.provenance
    if provenance is not None:
        model = replace(
            provenance.model,
            name=without_local_paths(provenance.model.name),
            pretrained=without_local_paths(provenance.model.pretrained),
        )
        provenance = replace(provenance, model=model)
    return Dictionary(dictionary.sae, dictionary.means, provenance)


def _links_and_leftovers(folder: str, names: list[str]) -> list[str]:
    """Return the names that are not copied: links, which may point outside the run, and partial files."""
    return [name for name in names if (Path(folder) / name).is_symlink() or name.startswith(".")]


def model_card(run: RunFolder, ids: list[str]) -> str:
    """Return the model card: a description of the dictionary, how to load it, its figures and its limits."""
    summary = without_local_paths(read_json(run.summary)) if run.summary.exists() else {}
    settings = without_local_paths(run.read_settings())
    controls = summary.get("controls") or {}
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(CARD).render(
        ids=ids,
        summary=summary,
        asked=settings.get("asked", {}),
        model=settings.get("model", {}),
        figure=_figure,
        control=lambda name: _control(controls.get(name, {})),
        within=sorted(
            {
                figure
                for figure, by_control in controls.items()
                for control, row in by_control.items()
                if control != "reseeds" and row.get("difference") is not None and not row.get("beyond", True)
            }
        ),
    )


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload an exported folder as the model repository `name`; return its URL.

    Requires a login with `hf auth login`; cliplens neither reads nor stores a token.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected="the package huggingface_hub", found="no such package", fix="run pip install huggingface_hub"
        ) from error
    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=str(folder)))


def _control(by: dict[str, Any]) -> str:
    """Return the value of each control of a figure, with its name."""
    return ", ".join(f"{_figure(row.get('control'))} ({name})" for name, row in by.items() if name != "reseeds")


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
