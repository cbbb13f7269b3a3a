"""One steering session: edits over doses, a strip of pictures, what was measured, all in one folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cliplens import api, registry
from cliplens.contracts import Generator
from cliplens.edits import Edit, LatentSteering, identity_of, load_edits, save_edits
from cliplens.errors import InputError
from cliplens.files import write_json
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary
from cliplens.sites import Modality
from cliplens_plugins.steering import readers
from cliplens_plugins.steering.answers import answers, is_answering
from cliplens_plugins.steering.choosing import Choice
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.parsing import parse_edit
from cliplens_plugins.steering.pictures import burnt, save_strip, sharpness
from cliplens_plugins.steering.sources import Run, samples_of

Pictures = list[Image.Image]
_CHANGED = "changed is the Kullback-Leibler divergence of the next token from dose 0, in nats"


@dataclass(frozen=True, kw_only=True)
class SteeringRequest:
    """What a session is asked for; the options of `cliplens steer`."""

    out: Path
    run: Path | None = None
    edit: tuple[str, ...] = ()
    edits: Path | None = None
    doses: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0)
    reference: str | None = None
    error_term: bool = True
    prompts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    pairs: int = 4
    generator: str = "world"
    pipeline: Path | None = None
    sae: Path | None = None
    site: str | None = None
    part: str | None = None
    window: tuple[float, float] | None = None
    steps: int = 30
    seed: int = 0
    measure: str | None = None
    judge: str | None = None

    def __post_init__(self) -> None:
        if self.run is None and (self.pipeline is None or self.sae is None):
            raise InputError(
                expected="a run folder, or --pipeline together with --sae",
                found="neither" if self.pipeline is None else "--pipeline alone",
                fix="give the folder of an earlier run, or a pipeline and a dictionary",
            )
        if not self.edit and self.edits is None and self.run is None:
            raise InputError(expected="something to do", found="no --edit and no --edits", fix="give --edit '17=+4'")
        if self.pipeline is not None and not self.prompts and not self.images:
            raise InputError(
                expected="something to draw or to ask", found="no --prompt and no --image", fix="give --prompt 'a ring'"
            )


def do(asked: SteeringRequest) -> dict[str, Any]:
    """Steer, draw or answer, measure; writes strip.png (of pictures), edits.json and steering.json into `asked.out` and
    returns the last.

    Raises:
        InputError: what is asked for does not go together; says which option to change.
    """
    run = None if asked.run is None else Run(RunFolder.open(asked.run))
    dictionary = _dictionary(asked, run)
    modality: Modality = "text" if asked.prompts and not asked.images else "image"
    choice = run.chosen_edit() if run is not None and not asked.edit and asked.edits is None else None
    steering = _steering(asked, run, dictionary, modality, choice)
    doses = asked.doses if 0.0 in asked.doses else (0.0, *asked.doses)
    answering = asked.pipeline is not None and is_answering(asked.pipeline)
    pipeline = None if asked.pipeline is None or answering else open_pipeline(asked.pipeline)
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.pipeline is not None and answering:
        doses = tuple(sorted(doses, key=abs))
        measured = answers(asked.pipeline, asked.prompts, asked.images, steering, doses, site=asked.site)
        labels, notes = [path.name for path in asked.images], [_CHANGED]
    else:
        labels, columns = _drawn(asked, run, pipeline, steering, doses, choice)
        save_strip(asked.out / "strip.png", list(zip(*columns, strict=True)), [f"dose {d:g}" for d in doses], labels)
        measured, notes = _measured(asked, doses, columns)
    save_edits(asked.out / "edits.json", steering.edits, dictionary)
    found = {
        "asked": {k: v for k, v in asdict(asked).items() if v not in (None, ())},
        "dictionary": identity_of(dictionary),
        "edits": [asdict(e) for e in steering.edits],
        "aim": asked.measure or (choice.aim if choice else None),
        "doses": list(doses),
        "samples": labels,
        "measured": measured,
        "notes": notes,
    }
    write_json(asked.out / "steering.json", found)
    return found


def _drawn(
    asked: SteeringRequest,
    run: Run | None,
    pipeline: Any | None,
    steering: LatentSteering,
    doses: Sequence[float],
    choice: Choice | None,
) -> tuple[list[str], list[Pictures]]:
    """Labels of the samples, and their pictures dose by dose."""
    if pipeline is not None:
        return _through_pipeline(asked, pipeline, steering, doses)
    assert run is not None
    return _through_generator(asked, run, steering, doses, choice)


def _dictionary(asked: SteeringRequest, run: Run | None) -> Dictionary:
    if asked.sae is not None:
        return Dictionary.load(asked.sae)
    assert run is not None
    return run.dictionary


def _steering(
    asked: SteeringRequest, run: Run | None, dictionary: Dictionary, modality: Modality, choice: Choice | None
) -> LatentSteering:
    table = run.table if run is not None and asked.sae is None and run.scored else None
    level = run.level(modality) if run is not None and asked.sae is None else None
    edits: list[Edit] = [] if asked.edits is None else load_edits(asked.edits, dictionary)
    edits += [parse_edit(text, table, level) for text in asked.edit]
    edits += [] if choice is None else [choice.edit]
    reference = None
    if asked.reference is not None:
        if run is None:
            raise InputError(
                expected="a run folder, whose model encodes the reference", found="--reference alone", fix="give a run"
            )
        path = Path(asked.reference)
        reference = run.codes(Image.open(path).convert("RGB") if path.is_file() else asked.reference)
    return LatentSteering(dictionary, edits, error_term=asked.error_term, reference=reference)


def _through_generator(
    asked: SteeringRequest, run: Run, steering: LatentSteering, doses: Sequence[float], choice: Choice | None
) -> tuple[list[str], list[Pictures]]:
    draw = registry.find("generators", asked.generator).make(Generator)
    keep = choice.starts_from if choice else lambda _: True
    labels, samples = samples_of(run, asked.prompts, asked.images, asked.pairs, keep)
    conditions = [run.embed(samples, steering.at_dose(dose)) for dose in doses]
    return labels, [list(draw.generate(condition, seed=asked.seed)) for condition in conditions]


def _through_pipeline(
    asked: SteeringRequest, pipeline: Any, steering: LatentSteering, doses: Sequence[float]
) -> tuple[list[str], list[Pictures]]:
    inputs: dict[str, Any] = {"prompt": list(asked.prompts)}
    if asked.images:
        inputs["image"] = [Image.open(path).convert("RGB") for path in asked.images]
    labels = list(asked.prompts) or [path.name for path in asked.images]
    columns = []
    for dose in doses:
        where = {"site": asked.site, "part": asked.part, "window": asked.window}
        with torch.no_grad(), steer(pipeline, steering.at_dose(dose), **where):  # type: ignore[arg-type]
            seeds = [torch.Generator().manual_seed(asked.seed + n) for n in range(len(labels))]
            made = pipeline(**inputs, num_inference_steps=asked.steps, generator=seeds)
        columns.append(list(made.images))
    return labels, columns


def open_pipeline(path: Path) -> Any:
    """A diffusers pipeline from a folder, weights from safetensors only.

    Raises:
        InputError: the folder holds no pipeline.
    """
    from diffusers import DiffusionPipeline

    if not (path / "model_index.json").is_file():
        raise InputError(
            expected="a folder with a model_index.json, as diffusers saves pipelines",
            found=str(path),
            fix="give that one",
        )
    pipeline = DiffusionPipeline.from_pretrained(str(path), local_files_only=True, use_safetensors=True)
    return pipeline.to(api.pick_device(None))


def _measured(
    asked: SteeringRequest, doses: Sequence[float], columns: Sequence[Pictures]
) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = [
        {
            "dose": dose,
            "sharpness": sum(map(sharpness, pictures)) / len(pictures),
            "burnt": sum(map(burnt, pictures)) / len(pictures),
        }
        for dose, pictures in zip(doses, columns, strict=True)
    ]
    notes = ["sharpness and burnt are proxies for picture quality; read them against dose 0"]
    if asked.measure is None:
        return rows, notes
    if asked.judge is not None:
        more = readers.similarities(asked.judge, asked.measure, asked.prompts, columns)
        notes.append("similarity is a cosine by the judge; the judge should not be the model steered")
    else:
        more = readers.attributes(asked.generator, asked.measure, doses, columns)
        notes.append(f"read off {len(columns[0])} pictures; benchmarks/steering.py scores hundreds")
    return [{**row, **extra} for row, extra in zip(rows, more, strict=True)], notes
