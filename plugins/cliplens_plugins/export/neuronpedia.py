"""Neuronpedia's export layout: `{model}/{source}/{release,model,sourceset,source}.jsonl`, features and activations.

As SAEDashboard's `neuronpedia_export.py` lays it out: `features/batch-0.jsonl.gz` holds a line per latent,
`activations/batch-0.jsonl.gz` a line per top sample. Neuronpedia knows tokens only. A caption is its words. A picture
becomes one pseudo-token, `Image_<id>`, and the pictures lie beside in `images/`, named in `images.jsonl`: upstream
shows the pseudo-token alone. A pooled latent has one activation per sample, which is put on the last token (as at EOT).
"""

import gzip
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cliplens.errors import InputError
from cliplens.exemplars import TABLE, load_exemplars
from cliplens.naming import UNNAMED
from cliplens.records import Exemplars, LatentTable
from cliplens.runfolder import RunFolder

CREATOR = "cliplens"
_KNOWN = frozenset({"name", "latent"})


def export_neuronpedia(run: RunFolder, out: Path, *, release: str = "cliplens") -> Path:
    """Write the layout into `out`, which must be missing or empty; returns the folder of the source.

    Raises:
        InputError: the run is not scored yet, or `out` is not empty.
    """
    if not run.latents.exists() or not (run.exemplars / TABLE).exists():
        raise InputError(expected=f"a scored run in {run.path}", found="no latents", do="let the run finish first")
    if out.exists() and any(out.iterdir()):
        raise InputError(expected=f"{out} to be missing or empty", found="files", do="give another --out")
    table, asked = LatentTable.load(run.latents), run.read_settings().get("asked", {})
    model, hook = str(asked.get("model", "clip")).replace("/", "-"), str(asked.get("hook", "hook_embedding"))
    source = f"{_layer(hook)}-{release}"
    folder = out / model / source
    _lines(folder / "release.jsonl", [{"name": release, "description": f"cliplens on {model}", "creatorName": CREATOR}])
    _lines(folder / "model.jsonl", [{"id": model, "displayName": model, "layers": 1, "creatorName": CREATOR}])
    _lines(
        folder / "sourceset.jsonl",
        [{"modelId": model, "name": release, "type": hook, "releaseName": release, "creatorName": CREATOR}],
    )
    _lines(folder / "source.jsonl", [{"modelId": model, "id": source, "setName": release, "hookName": hook}])
    exemplars = [e for e in load_exemplars(run.exemplars) if e is not None]
    _lines(folder / "features" / "batch-0.jsonl.gz", (_feature(table, k, model, source) for k in range(len(table))))
    _lines(
        folder / "activations" / "batch-0.jsonl.gz",
        (line for e in exemplars for k in range(len(e.at)) for line in _activations(e, k, model, source)),
    )
    _pictures(exemplars, folder)
    return folder


def _layer(hook: str) -> str:
    return next((part for part in hook.split(".") if part.isdigit()), "final")


def _feature(table: LatentTable, latent: int, model: str, source: str) -> dict[str, Any]:
    def number(name: str) -> float | None:
        value = float(table[name][latent]) if name in table else np.nan
        return None if np.isnan(value) else value

    rates = [r for r in (number("fire_image"), number("fire_text")) if r is not None]
    name = str(table["name"][latent]) if "name" in table else UNNAMED
    metrics = {
        c: number(c) for c in table if c not in _KNOWN and table[c].dtype.kind in "fiu" and number(c) is not None
    }
    return {
        "modelId": model,
        "layer": source,
        "index": str(latent),
        "creatorName": CREATOR,
        "frac_nonzero": float(np.mean(rates)) if rates else 0.0,
        "explanation": None if name == UNNAMED else name,
        "modality": str(table["modality"][latent]) if "modality" in table else None,
        "metrics": metrics,
    }


def _activations(exemplars: Exemplars, latent: int, model: str, source: str) -> Iterable[dict[str, Any]]:
    for rank, (pair, value) in enumerate(exemplars.of(latent)):
        tokens = [f"Image_{pair.id}"] if exemplars.modality == "image" else (pair.caption or "").split() or [""]
        values = [0.0] * (len(tokens) - 1) + [value]
        yield {
            "id": f"{latent}-{exemplars.modality}-{rank}",
            "modelId": model,
            "layer": source,
            "index": str(latent),
            "creatorName": CREATOR,
            "tokens": tokens,
            "values": values,
            "maxValue": value,
            "maxValueTokenIndex": len(tokens) - 1,
            "minValue": min(values),
            "dataIndex": pair.id,
            "modality": exemplars.modality,
        }


def _pictures(exemplars: list[Exemplars], folder: Path) -> None:
    """The sidecar: thumbnails, and which pseudo-token means which."""
    named: dict[str, str] = {}
    for pair in (p for e in exemplars if e.modality == "image" for p in e.pairs):
        if isinstance(pair.image, Path):
            (folder / "images").mkdir(exist_ok=True)
            shutil.copyfile(pair.image, folder / "images" / pair.image.name)
            named[f"Image_{pair.id}"] = f"images/{pair.image.name}"
    _lines(folder / "images.jsonl", ({"token": token, "file": file} for token, file in named.items()))


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    # No time stamp in the gzip header: the same run gives the same bytes.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
