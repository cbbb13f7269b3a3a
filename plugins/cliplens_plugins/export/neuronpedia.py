"""Export a run in the layout of Neuronpedia's bulk import.

    {model}/{source}/release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl
                     features/batch-0.jsonl.gz       a line per latent
                     activations/batch-0.jsonl.gz    a line per top sample
                     explanations/batch-0.jsonl.gz   a line per latent with a name

The layout is that of SAEDashboard's `neuronpedia_export.py`, and of Neuronpedia's own exports for the explanations.
`assets/neuronpedia.schema.json` defines the fields of a line.

Neuronpedia represents every sample as tokens. A caption is written as its tokens; an image is written as its patches,
`Image_patch_0`, `Image_patch_1`, ..., in row order. Each token has the latent's activation, if the run kept activations
by position (dictionaries trained inside the towers). A latent of pooled activations has one activation per sample: an
image is then one pseudo-token, `Image_<id>`, and the activation of a caption is put on its last word, as at EOT.
Data for which Neuronpedia has no field are written to additional files: the images to `images/`, the image of each
activation to `images.jsonl`, modality and metrics to `latents.jsonl`.
"""

import gzip
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cliplens.errors import InputError
from cliplens.exemplars import TABLE, load_exemplars, load_positions
from cliplens.files import atomic_folder
from cliplens.naming import UNNAMED
from cliplens.records import Exemplars, LatentTable, Pair, PositionActivations
from cliplens.runfolder import RunFolder
from cliplens.sites import Modality
from cliplens_plugins.export.local_paths import without_local_paths

CREATOR = "cliplens"
MOST_TOKENS = 1024
"""Maximum number of tokens of an activation on Neuronpedia."""
MOST_CHARACTERS = 512
"""Maximum number of characters of an explanation on Neuronpedia."""
_ASKED = re.compile(r"^(?P<model>.+) on its top (?:image|text) samples$")
_HISTOGRAMS = ("hist_image", "hist_text")
_ALIGNED = [f"neuron_alignment_{part}" for part in ("indices", "values", "l1")]
_CORRELATED = [f"correlated_{of}_{part}" for of in ("neurons", "features") for part in ("indices", "pearson", "l1")]
_LOGITS = ["neg_str", "neg_values", "pos_str", "pos_values"]
_LOGITS += ["logits_hist_data_bar_heights", "logits_hist_data_bar_values"]
_LISTS = (*_ALIGNED, *_CORRELATED, *_LOGITS, "decoder_weights_dist", "vector")
"""Fields of a feature about logits and neurons, which are empty for a latent of images and captions."""


def export_neuronpedia(run: RunFolder, out: Path, *, release: str = "cliplens", creator_id: str = CREATOR) -> Path:
    """Write Neuronpedia's import files into `out`; return the folder of the source, `{out}/{model}/{source}`.

    Args:
        run: a scored run.
        out: folder to create; must be missing or empty.
        release: name of the release on Neuronpedia.
        creator_id: id of the Neuronpedia account that imports it.

    Raises:
        InputError: the run is not scored yet, or `out` is not empty.
    """
    if not run.latents.exists() or not (run.exemplars / TABLE).exists():
        raise InputError(
            expected=f"a scored run in {run.path}",
            found="no latents.parquet",
            fix="finish the run with cliplens run, then export it",
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(
            expected=f"{out} to be missing or empty", found="files in it", fix="choose another folder with --out"
        )
    table, asked = LatentTable.load(run.latents), without_local_paths(run.read_settings().get("asked", {}))
    model, hook = str(asked.get("model", "clip")).replace("/", "-"), str(asked.get("hook", "hook_embedding"))
    source = f"{_layer(hook)}-{release}"
    with atomic_folder(out.resolve()) as partial:
        _write(run, table, asked, partial, model, source, release, creator_id)
    return out / model / source


def _write(
    run: RunFolder,
    table: LatentTable,
    asked: Mapping[str, Any],
    out: Path,
    model: str,
    source: str,
    release: str,
    creator_id: str,
) -> None:
    folder, hook = out / model / source, str(asked.get("hook", "hook_embedding"))
    # Use the time of the run, not of the export, so that exporting a run twice gives the same bytes.
    made = {"createdAt": datetime.fromtimestamp(int(run.latents.stat().st_mtime), UTC).isoformat()}
    by = {"creatorId": creator_id, **made}
    pairs = str(asked.get("pairs", "")) or None
    one_line_each: dict[str, dict[str, Any]] = {
        "release": {"name": release, "description": f"cliplens on {model}", "creatorName": CREATOR},
        "model": {"id": model, "instruct": False, "displayName": model, "updatedAt": made["createdAt"]},
        "sourceset": {"modelId": model, "name": release, "type": hook, "releaseName": release, "creatorName": CREATOR},
        "source": {"modelId": model, "id": source, "setName": release, "dataset": pairs},
    }
    for name, line in one_line_each.items():
        _lines(folder / f"{name}.jsonl", [{**line, **by}])
    exemplars = [e for e in load_exemplars(run.exemplars) if e is not None]
    heat = load_positions(run.exemplars)
    strongest = np.max([e.values.max(axis=1, initial=0.0) for e in exemplars], axis=0)
    here = {"modelId": model, "layer": source, **by}
    where = {"hookName": hook, "sourceSetName": release, **here}
    features = ({**_feature(table, k, float(strongest[k])), **where} for k in range(len(table)))
    _lines(folder / "features" / "batch-0.jsonl.gz", features)
    rows = [row for e in exemplars for k in range(len(e.at)) for row in _activations(e, k, heat)]
    _lines(folder / "activations" / "batch-0.jsonl.gz", ({**row, **here} for row, _ in rows))
    namer = str(asked.get("namer", "unknown"))
    told = (_explanation(table, k, namer) for k in range(len(table)))
    who = {"modelId": model, "layer": source, "authorId": creator_id, "createdAt": made["createdAt"]}
    ids = (f"{model}-{source}-{k}" for k in range(len(table)))
    explained = ({"id": own, **line, **who} for own, line in zip(ids, told, strict=True) if line is not None)
    _lines(folder / "explanations" / "batch-0.jsonl.gz", explained)
    _lines(folder / "latents.jsonl", (_beside(table, k) for k in range(len(table))))
    _pictures([(row["id"], pair) for row, pair in rows if pair is not None], folder)


def _layer(hook: str) -> str:
    return next((part for part in hook.split(".") if part.isdigit()), "final")


def _number(table: LatentTable, name: str, latent: int) -> float | None:
    value = float(table[name][latent]) if name in table else np.nan
    return float(value) if np.isfinite(value) else None


def _feature(table: LatentTable, latent: int, strongest: float) -> dict[str, Any]:
    rates = [r for r in (_number(table, n, latent) for n in ("fire_image", "fire_text")) if r is not None]
    of_each = [np.asarray(table[name][latent], dtype=np.int64) for name in _HISTOGRAMS if name in table]
    counts = np.sum(of_each, axis=0) if of_each else np.zeros(0, dtype=np.int64)
    held = np.flatnonzero(counts)
    near = table["neighbours"][latent] if "neighbours" in table else ()
    cosines = table["neighbour_cosine"][latent] if "neighbours" in table else ()
    return {
        "index": str(latent),
        "frac_nonzero": float(np.mean(rates)) if rates else 0.0,
        "maxActApprox": strongest,
        "hasVector": False,
        "freq_hist_data_bar_heights": [float(counts[b]) for b in held],
        "freq_hist_data_bar_values": [float(2.0 ** (b / 2 - 12)) for b in held],
        "topkCosSimIndices": [int(k) for k in near],
        "topkCosSimValues": [float(c) for c in cosines],
        **{name: [] for name in _LISTS},
    }


def _explanation(table: LatentTable, latent: int, namer: str) -> dict[str, Any] | None:
    """Return the name of a latent as an explanation, with the model that gave it; None without a name."""
    name = str(table["name"][latent]) if "name" in table else UNNAMED
    if name == UNNAMED or not name.strip():
        return None
    asked = _ASKED.match(str(table["name_evidence"][latent])) if "name_evidence" in table else None
    return {
        "index": str(latent),
        "description": name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 1]}\u2026",
        "typeName": f"cliplens_{namer}",
        "explanationModelName": asked["model"] if asked else CREATOR,
    }


def _beside(table: LatentTable, latent: int) -> dict[str, Any]:
    """Return the values of a latent for which Neuronpedia has no field."""
    name = str(table["name"][latent]) if "name" in table else UNNAMED
    single = [c for c in table if table[c].ndim == 1 and table[c].dtype.kind in "fiu" and c != "latent"]
    metrics = {c: value for c in single if (value := _number(table, c, latent)) is not None}
    modality = str(table["modality"][latent]) if "modality" in table else None
    return {"index": str(latent), "name": None if name == UNNAMED else name, "modality": modality, "metrics": metrics}


def _activations(
    exemplars: Exemplars, latent: int, heat: Mapping[tuple[Modality, int, int], PositionActivations]
) -> Iterable[tuple[dict[str, Any], Pair | None]]:
    """Yield a line per top sample, with the pair whose image it shows, if any."""
    modality = exemplars.modality
    for rank, (pair, value) in enumerate(exemplars.of(latent)):
        tokens, values = _most_tokens(*_tokens(pair, value, modality, heat.get((modality, latent, rank))))
        best = int(np.argmax(values))
        row = {
            "id": f"{latent}-{modality}-{rank}",
            "index": str(latent),
            "tokens": tokens,
            "values": values,
            "maxValue": values[best],
            "maxValueTokenIndex": best,
            "minValue": min(values),
            "qualifyingTokenIndex": best,
            "dataIndex": pair.id,
            "dataSource": modality,
        }
        yield row, pair if modality == "image" else None


def _tokens(
    pair: Pair, value: float, modality: Modality, heat: PositionActivations | None
) -> tuple[list[str], list[float]]:
    if heat is None or not len(heat.values):
        tokens = [f"Image_{pair.id}"] if modality == "image" else (pair.caption or "").split() or [""]
        return tokens, [0.0] * (len(tokens) - 1) + [float(value)]
    values = [float(v) for v in heat.values]
    if modality == "image":
        return [f"Image_patch_{n}" for n in range(len(values))], values
    caption = pair.caption or ""
    ends = [0, *(end for _, end in heat.spans)]
    return [caption[before:end] for before, end in pairwise(ends)], values


def _most_tokens(tokens: list[str], values: list[float]) -> tuple[list[str], list[float]]:
    """Return at most `MOST_TOKENS` consecutive tokens around the one with the highest activation."""
    start = max(0, min(int(np.argmax(values)) - MOST_TOKENS // 2, len(tokens) - MOST_TOKENS))
    return tokens[start : start + MOST_TOKENS], values[start : start + MOST_TOKENS]


def _pictures(shown: list[tuple[str, Pair]], folder: Path) -> None:
    """Write the thumbnails, and a file that maps activations to thumbnails."""
    rows = []
    if any(isinstance(pair.source, Path) for _, pair in shown):
        (folder / "images").mkdir(exist_ok=True)
    for activation, pair in shown:
        if isinstance(pair.source, Path):
            file = f"images/{pair.source.name}"
            if not (folder / file).exists():
                shutil.copyfile(pair.source, folder / file)
            rows.append({"activation": activation, "id": pair.id, "file": file})
    _lines(folder / "images.jsonl", rows)


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()
    # Write no time stamp into the gzip header, so that exporting a run twice gives the same bytes.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
