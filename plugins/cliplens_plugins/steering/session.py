"""Run one steering session: apply edits over doses, measure the effect, and write one folder."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cliplens.edits import Edit, LatentSteering, identity_of, load_edits, save_edits
from cliplens.errors import InputError
from cliplens.files import write_json
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, open_dictionary
from cliplens.sites import Modality
from cliplens_plugins.steering.answers import is_answering
from cliplens_plugins.steering.choosing import Choice
from cliplens_plugins.steering.control import RandomControl
from cliplens_plugins.steering.page import save_page
from cliplens_plugins.steering.parsing import Group, parse_edits
from cliplens_plugins.steering.pictures import save_strip
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run
from cliplens_plugins.steering.targets import (
    AnsweringTarget,
    ClipTarget,
    GeneratorTarget,
    Outcome,
    PipelineTarget,
    Target,
)

WRITTEN = ("strip.png", "edits.json", "steering.json", "steering.html")
"""Files of a session; strip.png only where pictures were drawn."""
CONTROL = "a random edit"
"""Name of the control of equal norm."""


@dataclass
class _Session:
    """A request with its run and dictionary opened."""

    request: SteeringRequest
    run: Run | None
    dictionary: Dictionary
    modality: Modality
    choice: Choice | None = None
    taken: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The latents that words resolved to, by words."""

    def target(self) -> Target:
        """Return what is steered."""
        request, run = self.request, self.run
        if request.pipeline is not None:
            return (AnsweringTarget if is_answering(request.pipeline) else PipelineTarget)(request)
        assert run is not None
        drawn = "world" if run.asked.model == "world" and "image" in run.modalities else "none"
        generator = drawn if request.generator is None else request.generator
        if generator == "none":
            return ClipTarget(request, run, self.choice)
        return GeneratorTarget(request, run, generator, self.choice)

    def steering(self) -> LatentSteering:
        """Return the edits of the request as a steering object at dose 1."""
        request = self.request
        edits: list[Edit] = [] if request.edits is None else load_edits(request.edits, self.dictionary)
        for text in request.edit or (() if self.choice is None else (self.choice.text,)):
            edits += self._parsed(text)
        return self._steering(edits)

    def beside(self, main: LatentSteering) -> Iterator[tuple[str, Any]]:
        """Yield the other edits to compare with, and the random edit, with their names."""
        for text in self.request.compare:
            yield text, self._steering(self._parsed(text))
        if self.request.control:
            yield CONTROL, RandomControl(main, seed=self.request.seed)

    def _steering(self, edits: list[Edit]) -> LatentSteering:
        kept = self.request.error_term
        return LatentSteering(self.dictionary, edits, use_error_term=kept, reference=self._reference())

    def _parsed(self, text: str) -> list[Edit]:
        run = self.run
        if run is None or self.request.sae is not None or not run.scored:
            edits = parse_edits(text)
        else:
            edits = parse_edits(text, self._found, table=run.table, level=run.level(self.modality))
        where = self.request.positions
        return edits if where == "all" else [replace(e, options={**e.options, "positions": where}) for e in edits]

    def _found(self, words: str) -> Group:
        assert self.run is not None
        group = self.run.group(words, self.modality)
        by_latent = {c.latent: c for c in self.run.find(words, self.dictionary.d_sae, modality=self.modality)}
        self.taken[words] = [_row_of(by_latent[k]) for k in group.latents]
        return group

    def _reference(self) -> Any:
        if self.request.reference is None:
            return None
        if self.run is None:
            raise InputError(
                expected="a run folder, whose model encodes the reference",
                found="--reference without a run",
                fix="pass the folder of a finished run",
            )
        path = Path(self.request.reference)
        return self.run.codes(Image.open(path).convert("RGB") if path.is_file() else self.request.reference)


def do(request: SteeringRequest) -> dict[str, Any]:
    """Steer a model over doses and measure the effect.

    Writes strip.png (for pictures), edits.json, steering.json and steering.html into `request.out`. Returns the content
    of steering.json.

    Raises:
        InputError: the options cannot be combined; the message names the one to change.
    """
    session = _open(request)
    steering, target = session.steering(), session.target()
    others = list(session.beside(steering))  # edits that cannot be read are refused before anything is drawn
    main = target.over_doses(steering)
    compared = [(name, target.over_doses(other)) for name, other in others]
    request.out.mkdir(parents=True, exist_ok=True)
    if main.columns:
        heads = [f"dose {d:g}" for d in request.ordered_doses]
        save_strip(request.out / "strip.png", list(zip(*main.columns, strict=True)), heads, main.labels)
    else:
        (request.out / "strip.png").unlink(missing_ok=True)  # of an earlier session
    save_edits(request.out / "edits.json", steering.edits, session.dictionary)
    found = _content(session, steering, main, compared)
    write_json(request.out / "steering.json", found)
    columns = [main.columns, *(outcome.columns for _, outcome in compared)] if main.columns else []
    save_page(request.out / "steering.html", found, columns, main.labels)
    return found


def _content(
    session: _Session, steering: LatentSteering, main: Outcome, compared: list[tuple[str, Outcome]]
) -> dict[str, Any]:
    more = dict(main.more)
    aim = session.request.measure or (session.choice.aim if session.choice else None)
    rows = main.rows
    for name, outcome in compared:
        rows = _with_control(rows, outcome.rows, more.get("aim")) if name == CONTROL else rows
    return {
        "asked": {k: v for k, v in asdict(session.request).items() if v not in (None, ())},
        "dictionary": identity_of(session.dictionary),
        "edits": [asdict(e) for e in steering.edits],
        "latents": session.taken,
        "aim": more.pop("aim", aim),
        "doses": list(dict.fromkeys(row["dose"] for row in rows)),
        "samples": main.labels,
        "measured": rows,
        "notes": main.notes,
        "compared": [{"edit": name, "measured": o.rows, "notes": o.notes, **o.more} for name, o in compared],
        **more,
    }


def _with_control(rows: list[dict[str, Any]], random: list[dict[str, Any]], aim: str | None) -> list[dict[str, Any]]:
    """Return rows with the random edit's success beside the own."""
    if aim is None or aim not in random[0]:
        return rows
    return [{**row, f"{aim} by {CONTROL}": beside[aim]} for row, beside in zip(rows, random, strict=True)]


def _open(request: SteeringRequest) -> _Session:
    run = None if request.run is None else Run(RunFolder.open(request.run))
    if request.sae is not None:
        dictionary = open_dictionary(request.sae)
    else:
        assert run is not None
        dictionary = run.dictionary
    modality: Modality = "text" if request.prompts and not request.images else "image"
    if run is not None and request.sae is None and run.modalities and modality not in run.modalities:
        modality = run.modalities[0]
    choice = run.chosen_edit() if run is not None and not request.edit and request.edits is None else None
    return _Session(request, run, dictionary, modality, choice)


def _row_of(candidate: Any) -> dict[str, Any]:
    return {
        "latent": candidate.latent,
        "name": candidate.name,
        "evidence": candidate.evidence,
        "reach": candidate.reach,
        "level": candidate.level,
    }
