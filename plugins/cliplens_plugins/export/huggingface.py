"""A folder for the Hugging Face hub, in the layout `SAE.from_pretrained(repo, sae_id)` reads, with a model card.

image/  text/   the dictionary for raw activations of one tower, each a SAELens folder of its own
shared/         the dictionary itself (for centred activations), with the modality means beside it
latents.parquet, exemplars/, README.md
"""

import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from cliplens.errors import InputError, MissingExtraError
from cliplens.files import read_json
from cliplens.runfolder import RunFolder
from cliplens.sae import verify_folder
from cliplens_plugins.export.card import CARD

_PARTS = {"image": "image", "text": "text"}


def export_huggingface(run: RunFolder, out: Path, *, pictures: bool = True) -> Path:
    """Copy dictionary, table and exemplars of a run into `out`, and write the model card; uploads nothing.

    Args:
        run: a finished run with a dictionary of its own.
        out: the folder to make; must be missing or empty.
        pictures: copy the exemplars' thumbnails too (leave out what you may not share).

    Raises:
        InputError: there is no dictionary in the run, or `out` is not empty.
        DamagedError: a file of the dictionary was altered or is cut; nothing is written then.
    """
    if not (run.sae / "cfg.json").exists():
        raise InputError(
            expected=f"a dictionary in {run.sae}", found="none", fix="train one, or export the folder given to --sae"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(expected=f"{out} to be missing or empty", found="files", fix="give another --out")
    verify_folder(run.sae)
    out.mkdir(parents=True, exist_ok=True)
    ids = [name for name, part in _PARTS.items() if (run.sae / part / "cfg.json").exists()]
    shutil.copytree(run.sae, out / "shared", ignore=shutil.ignore_patterns(*_PARTS.values()))
    for name in ids:
        shutil.copytree(run.sae / _PARTS[name], out / name)
    for file in (run.latents, run.summary, run.toml):
        if file.exists():
            shutil.copyfile(file, out / file.name)
    if pictures and run.exemplars.exists():
        shutil.copytree(run.exemplars, out / "exemplars")
    (out / "README.md").write_text(model_card(run, [*ids, "shared"]), encoding="utf-8")
    return out


def model_card(run: RunFolder, ids: list[str]) -> str:
    """The card: what the dictionary is, how to load it, its figures and its limits."""
    summary = read_json(run.summary) if run.summary.exists() else {}
    settings = run.read_settings()
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(CARD).render(
        ids=ids, summary=summary, asked=settings.get("asked", {}), model=settings.get("model", {}), figure=_figure
    )


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload an exported folder as the model repository `name`; returns its address.

    Needs a login made with `hf auth login`; nothing here reads or stores a token.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            expected="huggingface_hub", found="no such package", fix="pip install huggingface_hub"
        ) from error
    hub = HfApi()
    hub.create_repo(name, private=private, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=str(folder)))


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
