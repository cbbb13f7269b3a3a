"""Every reader of cliplens with a good input, for the fuzzer."""

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faults.commands import Place

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """A good file, and a function that reads a file in its place."""

    name: str
    good: Path
    read: Read


def readers(place: Place) -> list[Reader]:
    """Return every reader; the good files come from a finished run and from what it was made of."""
    made = place.path / "readers"
    made.mkdir(exist_ok=True)
    run = place.finished / "run"
    return [*_of_runs(run, made), *_of_pairs(place.pairs, made), *_of_dictionaries(run, made), *_of_people(run, made)]


def _copied(start: Path, name: str, read: Read) -> Read:
    """Read a whole folder in which one file is another one."""
    folder = start.with_name(f"{start.name}-{name.replace('/', '-')}")

    def as_folder(path: Path) -> object:
        if not folder.exists():
            shutil.copytree(start, folder)
        (folder / name).write_bytes(path.read_bytes())
        return read(folder)

    return as_folder


def _of_runs(run: Path, made: Path) -> list[Reader]:
    from cliplens.exemplars import load_exemplars
    from cliplens.files import read_json
    from cliplens.records import LatentTable
    from cliplens.run import OpenedRun, verify
    from cliplens.run.steps import StepLog
    from cliplens.runfolder import RunFolder
    from cliplens.store.arrow import read_table
    from cliplens.store.manifest import ShardRecord, read_plan
    from cliplens_plugins.report.content import read_content

    small = made / "run"
    if not small.exists():
        shutil.copytree(run, small, ignore=shutil.ignore_patterns("activations", "sae", "images", "*.html", "report"))
    for name in ("images",):
        shutil.copytree(run / "exemplars" / name, small / "exemplars" / name)

    def content(folder: Path) -> object:
        return read_content(RunFolder(folder)).data({})

    def shown(folder: Path) -> object:
        from cliplens_plugins.report.html import HtmlReport

        return HtmlReport().write(folder)

    def opened(folder: Path) -> object:
        return OpenedRun(RunFolder(folder)).asked

    def held(path: Path) -> object:
        path.with_name("shards").mkdir(exist_ok=True)
        shutil.copyfile(path, path.with_name("shards") / "00000.json")
        return ShardRecord.load(path.parent, 0)

    def steps(folder: Path) -> object:
        verify(RunFolder(folder))
        return StepLog(RunFolder(folder)).records

    def planned(path: Path) -> object:
        shutil.copyfile(path, path.with_name("manifest.json"))
        return read_plan(path.parent)

    activations = run / "activations"
    return [
        Reader("run.toml", run / "run.toml", _copied(small, "run.toml", opened)),
        Reader("steps.json", run / "steps.json", _copied(small, "steps.json", steps)),
        Reader("manifest.json", activations / "manifest.json", planned),
        Reader("shard record", activations / "shards" / "00000.json", held),
        Reader("shard", next((activations / "pairs").glob("*.arrow")), read_table),
        Reader("latents.parquet", run / "latents.parquet", LatentTable.load),
        Reader(
            "exemplars.parquet",
            run / "exemplars" / "exemplars.parquet",
            _copied(small / "exemplars", "exemplars.parquet", load_exemplars),
        ),
        Reader("findings.json", run / "findings.json", _copied(small, "findings.json", shown)),
        Reader("summary.json", run / "summary.json", _copied(small, "summary.json", shown)),
        Reader("quarantine.jsonl", run / "quarantine.jsonl", _copied(small, "quarantine.jsonl", content)),
        Reader("steering.json", run / "steering" / "steering.json", _copied(small, "steering/steering.json", shown)),
        Reader("causal.json", run / "causal.json", read_json),
    ]


def _of_pairs(table: Path, made: Path) -> list[Reader]:
    from cliplens.errors import PairsError
    from cliplens.pairs import open_image, read_pairs

    folder = table.parent
    rows = [(f"{n}.png", f'a "red" circle, number {n}') for n in range(8)]
    (made / "t.tsv").write_text("image\tcaption\n" + "".join(f"{i}\t{c}\n" for i, c in rows))
    (made / "t.jsonl").write_text("".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in rows))
    coco = {
        "images": [{"id": n, "file_name": i} for n, (i, _) in enumerate(rows)],
        "annotations": [{"id": n, "image_id": n, "caption": c} for n, (_, c) in enumerate(rows)],
    }
    (made / "t.json").write_text(json.dumps(coco))
    with tarfile.open(made / "t.tar", "w") as tar:
        for name, _ in rows[:4]:
            caption = made / f"{Path(name).stem}.txt"
            caption.write_text("a red circle")
            tar.add(folder / name, name)
            tar.add(caption, caption.name)
    pictures = made / "pictures"
    pictures.mkdir(exist_ok=True)
    shutil.copyfile(folder / "0.png", pictures / "0.png")
    (pictures / "0.txt").write_text("a red circle\n")
    with Image.open(folder / "0.png") as picture:
        for ending in ("jpg", "webp", "gif", "tiff", "bmp"):
            picture.convert("RGB").save(made / f"p.{ending}")

    def pairs(path: Path, root: Path | None = folder) -> object:
        found = read_pairs(path, **({} if root is None else {"image_root": root}))
        for number in range(min(len(found), 3)):
            try:
                open_image(found[number])
            except PairsError:
                continue
        return found

    def picture_beside(path: Path) -> object:
        (pictures / f"0{path.suffix}").write_bytes(path.read_bytes())
        found = pairs(pictures, None)
        if path.suffix != ".txt":
            (pictures / f"0{path.suffix}").unlink(missing_ok=path.suffix != ".png")
        return found

    return [
        Reader("pairs.csv", table, pairs),
        Reader("pairs.tsv", made / "t.tsv", pairs),
        Reader("pairs.jsonl", made / "t.jsonl", pairs),
        Reader("COCO captions", made / "t.json", pairs),
        Reader("tar of pairs", made / "t.tar", lambda path: pairs(path, None)),
        Reader("parquet of pairs", _parquet(made, rows), lambda path: read_pairs(path, modalities="text")),
        Reader("caption .txt", pictures / "0.txt", picture_beside),
        *(Reader(f"picture .{e}", made / f"p.{e}", picture_beside) for e in ("jpg", "webp", "gif", "tiff", "bmp")),
    ]


def _parquet(made: Path, rows: list[tuple[str, str]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [i for i, _ in rows], "caption": [c for _, c in rows]}), made / "t.parquet")
    return made / "t.parquet"


def _of_dictionaries(run: Path, made: Path) -> list[Reader]:
    from safetensors.torch import save_file

    from cliplens.sae import Dictionary, open_dictionary
    from cliplens.sae.checkpoint import load_state, save_state
    from cliplens.store import read_embeddings
    from cliplens_plugins.monosemanticity import PrecomputedJudge

    bare = made / "sae"
    if not bare.exists():
        shutil.copytree(run / "sae", bare, ignore=shutil.ignore_patterns("sha256.json", "image", "text"))
    weights = {n: t.detach().clone() for n, t in Dictionary.load(run / "sae").sae.state_dict().items()}
    plain = {n: weights[n] for n in ("W_enc", "W_dec", "b_enc", "b_dec")}
    torch.save(plain, made / "plain.pt")
    foreign = made / "foreign"
    foreign.mkdir(exist_ok=True)
    save_file(plain, foreign / "weights.safetensors")
    (foreign / "config.json").write_text(json.dumps({"activation": "topk", "k": 4}))
    rows = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    ids = np.array([f"p{n}" for n in range(6)])
    np.save(made / "e.npy", rows)
    np.savez(made / "e.npz", image=rows, text=rows, ids=ids)
    save_file({"image": torch.tensor(rows), "text": torch.tensor(rows)}, made / "e.safetensors")
    save_state(made / "checkpoints", 512, {"weights": {"w": torch.ones(4)}, "n": 3}, {"k": 4})

    def checkpoint(path: Path) -> object:
        shutil.copyfile(path, made / "checkpoints" / "training-000000000512.safetensors")
        return load_state(made / "checkpoints", {"k": 4})

    def judged(path: Path) -> object:
        return PrecomputedJudge(str(path)).embed(None, None, ids.tolist())

    return [
        Reader("cfg.json", run / "sae" / "cfg.json", _copied(bare, "cfg.json", open_dictionary)),
        Reader(
            "sae_weights.safetensors",
            run / "sae" / "sae_weights.safetensors",
            _copied(bare, "sae_weights.safetensors", open_dictionary),
        ),
        Reader(
            "means.safetensors",
            run / "sae" / "means.safetensors",
            _copied(bare, "means.safetensors", open_dictionary),
        ),
        Reader("dictionary with hashes", run / "sae" / "cfg.json", _copied(run / "sae", "cfg.json", open_dictionary)),
        Reader("plain checkpoint .pt", made / "plain.pt", lambda path: open_dictionary(path, "plain")),
        Reader("foreign config.json", foreign / "config.json", _copied(foreign, "config.json", open_dictionary)),
        Reader("training checkpoint", next((made / "checkpoints").glob("*.safetensors")), checkpoint),
        Reader("embeddings .npy", made / "e.npy", lambda path: read_embeddings([path, made / "e.npy"])),
        Reader("embeddings .npz", made / "e.npz", lambda path: read_embeddings([path])),
        Reader("embeddings .safetensors", made / "e.safetensors", lambda path: read_embeddings([path])),
        Reader("embeddings of a judge", made / "e.npz", judged),
    ]


def _of_people(run: Path, made: Path) -> list[Reader]:
    from cliplens.edits import load_edits
    from cliplens.records import LatentTable
    from cliplens.run.checks import check_vocabulary
    from cliplens.sae import Dictionary
    from cliplens_plugins.autointerp.name_questions import read_name
    from cliplens_plugins.report.agree import agreement_between, agreement_with_metrics, read_ratings
    from cliplens_plugins.report.rate import FORMAT

    dictionary, table = Dictionary.load(run / "sae"), LatentTable.load(run / "latents.parquet")
    answers = {str(k): {"concept": "yes", "modality": "image", "name": "right"} for k in range(4)}
    (made / "ratings.json").write_text(json.dumps({"format": FORMAT, "rater": "a", "run": "x", "answers": answers}))
    (made / "words.txt").write_text("red\nblue circle\n")
    (made / "answer.json").write_text('Sure: {"name": "red circle", "confidence": 0.9}')

    def ratings(path: Path) -> object:
        given = [read_ratings(path)]
        return agreement_between(given, draws=3), agreement_with_metrics(given, table)

    def answer(path: Path) -> object:
        try:
            return read_name(path.read_bytes().decode(errors="replace"))
        except (ValueError, TypeError):
            return None  # an answer that cannot be read is asked for again

    return [
        Reader("edits", run / "steering" / "edits.json", lambda path: load_edits(path, dictionary)),
        Reader("ratings", made / "ratings.json", ratings),
        Reader("vocabulary", made / "words.txt", lambda path: check_vocabulary(str(path))),
        Reader("answer of a model", made / "answer.json", answer),
    ]
