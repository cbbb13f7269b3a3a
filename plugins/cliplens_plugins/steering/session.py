"""Run one steering session: apply edits over doses, measure the effect, and write one folder."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from PIL import Image

from cliplens.edits import Edit, LatentSteering, identity_of, load_edits, save_edits, swap
from cliplens.errors import InputError
from cliplens.files import check_room, make_folder, write_json
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, open_dictionary
from cliplens.sites import Modality
from cliplens_plugins.steering.answers import is_answering
from cliplens_plugins.steering.choosing import Choice
from cliplens_plugins.steering.control import RandomControl
from cliplens_plugins.steering.drawing import as_trained
from cliplens_plugins.steering.figures import NO_EFFECT, Rows
from cliplens_plugins.steering.given import reference_of
from cliplens_plugins.steering.mixing import Mixed, mixed_latents, moved, scored
from cliplens_plugins.steering.page import save_page
from cliplens_plugins.steering.parsing import Group, parse_edits
from cliplens_plugins.steering.pictures import save_strip
from cliplens_plugins.steering.ports.movement import NoEffectWarning
from cliplens_plugins.steering.readers import check_judge
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.samples import compared_with, samples_of
from cliplens_plugins.steering.sources import Run
from cliplens_plugins.steering.targets import (
    AnsweringTarget,
    ClipTarget,
    GeneratorTarget,
    Outcome,
    PipelineTarget,
    Target,
)
from cliplens_plugins.steering.verdict import verdict_of

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
    good: dict[str, int] = field(default_factory=dict)
    """How many latents represent the words, by words."""

    def target(self) -> Target:
        """Return what is steered."""
        request, run = self.request, self.run
        if request.pipeline is not None and not is_answering(request.pipeline):
            samples_of(request)  # options that do not go together are refused before the pipeline is opened
            return PipelineTarget(request, run)
        generator = self._generator()
        if request.pipeline is not None or generator == "none":
            request.check_without_pictures()
        if request.pipeline is not None:
            return AnsweringTarget(request)
        assert run is not None
        if generator == "none":
            return ClipTarget(request, run, self.choice)
        return GeneratorTarget(request, run, generator, self.choice)

    def _generator(self) -> str:
        run = self.run
        drawn = (
            run is not None and run.asked.model == "world" and "image" in run.modalities and not self.request.classes
        )
        return self.request.generator or ("world" if drawn else "none")

    def named(self) -> dict[str, Any]:
        """Return the steerings of the session by name, the session's own first."""
        if self.request.mix:
            return {name: self._each(self._placed([swap(latents, 1.0)])) for name, latents in self.mixed.items()}
        main = self.steering()
        name = " and ".join(self.request.edit) or (self.choice.text if self.choice else "the edit")
        return {name: main, **dict(self.beside(main))}

    @cached_property
    def mixed(self) -> dict[str, list[int]]:
        """The latents of each class to mix in, and their controls; empty without --mix."""
        if not self.request.mix:
            return {}
        assert self.run is not None
        found = mixed_latents(self.run.table["modality"], self.request.seed)
        if len(found) == 1:
            raise InputError(
                expected="a run whose latents have modality classes, since --mix is given",
                found=f"none in {self.run.folder.latents}",
                fix="make a run on images and captions, with a dictionary for both",
            )
        return found

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
        return self._each(edits)[0]

    def _each(self, edits: list[Edit]) -> tuple[LatentSteering, ...]:
        """Return a steering for each reference, or one without."""
        kept = self.request.error_term
        codes = self._reference_codes or [None]
        return tuple(LatentSteering(self.dictionary, edits, use_error_term=kept, reference=c) for c in codes)

    def _parsed(self, text: str) -> list[Edit]:
        run = self.run
        if run is None or self.request.sae is not None or not run.scored:
            edits = parse_edits(text)
        else:
            edits = parse_edits(text, self._found, table=run.table, level=run.level(self.modality))
        return self._placed(edits)

    def _placed(self, edits: list[Edit]) -> list[Edit]:
        where = self.request.positions
        return edits if where == "all" else [replace(e, options={**e.options, "positions": where}) for e in edits]

    def _found(self, words: str) -> Group:
        assert self.run is not None
        group = self.run.group(words, self.modality, self.request.most)
        by_latent = {c.latent: c for c in self.run.find(words, self.dictionary.d_sae, modality=self.modality)}
        self.taken[words] = [_row_of(by_latent[k]) for k in group.latents]
        self.good[words] = group.n_good or len(group.latents)
        return group

    @cached_property
    def references(self) -> list[Image.Image | str]:
        """The pictures and captions of --reference."""
        return [reference_of(given) for given in self.request.reference]

    @cached_property
    def _reference_codes(self) -> list[Any]:
        if not self.references:
            return []
        if self.run is None:
            raise InputError(
                expected="a run folder, whose model encodes the reference",
                found="--reference without a run",
                fix="pass the folder of a finished run",
            )
        generator = "none" if self.request.pipeline else self._generator()
        drawn = self.references if generator == "none" else as_trained(self.request, generator, self.references)
        return [self.run.codes(reference) for reference in drawn]


def do(request: SteeringRequest) -> dict[str, Any]:
    """Steer a model over doses and measure the effect.

    Writes strip.png (for pictures), edits.json, steering.json and steering.html into `request.out`. Returns the content
    of steering.json.

    Raises:
        InputError: the options cannot be combined; the message names the one to change.
    """
    check_room(request.out, 0)
    session = _open(request)
    steerings, target = session.named(), session.target()  # edits that cannot be read are refused before drawing
    if request.judge is not None:
        check_judge(request.judge)
    outcomes = _outcomes(request, target, steerings)
    main = next(iter(outcomes.values()))
    edits = () if request.mix else next(iter(steerings.values())).edits
    found = _content(session, edits, outcomes) | ({"mixed": _mixed(session, outcomes)} if request.mix else {})
    make_folder(request.out)
    _save_strip(request, outcomes)
    if request.mix:
        (request.out / "edits.json").unlink(missing_ok=True)  # the edits of a mix are not applied one after another
    else:
        save_edits(request.out / "edits.json", edits, session.dictionary)
    write_json(request.out / "steering.json", found)
    save_page(request.out / "steering.html", found, [o.columns for o in outcomes.values() if main.columns], main.labels)
    return found


def _outcomes(request: SteeringRequest, target: Target, steerings: dict[str, Any]) -> dict[str, Outcome]:
    """Return what each steering did. In a mix, sets of latents that do not fire are an outcome and give no warning."""
    with warnings.catch_warnings():
        if request.mix:
            warnings.simplefilter("ignore", NoEffectWarning)
        return {name: target.over_doses(steering) for name, steering in steerings.items()}


def _save_strip(request: SteeringRequest, outcomes: dict[str, Outcome]) -> None:
    """Write one row per sample or, of a mix, one row per class for the first sample; one column per dose."""
    main = next(iter(outcomes.values()))
    path = request.out / "strip.png"
    if not main.columns:
        path.unlink(missing_ok=True)  # of an earlier session
    elif request.mix:
        rows = [[column[0] for column in outcome.columns] for outcome in outcomes.values()]
        save_strip(path, rows, [f"alpha {d:g}" for d in request.ordered_doses], list(outcomes))
    else:
        save_strip(
            path, list(zip(*main.columns, strict=True)), [f"dose {d:g}" for d in request.ordered_doses], main.labels
        )


def _content(session: _Session, edits: Sequence[Edit], outcomes: dict[str, Outcome]) -> dict[str, Any]:
    (own, main), *compared = outcomes.items()
    more = dict(main.more)
    aim = session.request.measure or (session.choice.aim if session.choice else None)
    rows = main.rows
    for name, outcome in compared:
        rows = _with_control(rows, outcome.rows, more.get("aim")) if name == CONTROL else rows
    found = {
        "asked": {k: v for k, v in asdict(session.request).items() if v not in (None, ())},
        "dictionary": identity_of(session.dictionary),
        "edit": own,
        "edits": [asdict(e) for e in edits],
        "latents": session.taken,
        "good": session.good,
        "aim": more.pop("aim", aim),
        "doses": list(dict.fromkeys(row["dose"] for row in rows)),
        "samples": main.labels,
        "measured": rows,
        "notes": main.notes,
        "compared": [{"edit": name, "measured": o.rows, "notes": o.notes, **o.more} for name, o in compared],
        **more,
    }
    control = dict(compared).get(CONTROL)
    return found | {"verdict": verdict_of(session.request, found, None if control is None else control.rows)}


def _mixed(session: _Session, outcomes: dict[str, Outcome]) -> Rows:
    """Return the figures of a mix, by class and alpha, and add how to read them to the notes of the first outcome."""
    request, notes = session.request, next(iter(outcomes.values())).notes
    still = [name for name, outcome in outcomes.items() if any(note.startswith(NO_EFFECT) for note in outcome.notes)]
    notes[:] = [note for note in notes if not note.startswith(NO_EFFECT)]
    if still:
        notes.append(f"no effect of {'; '.join(still)}: none of these latents fires here or in the reference")
    if request.judge is None:
        notes.append("pass --judge to score how near the pictures are to the prompt and to the reference")
        return moved({name: o.rows for name, o in outcomes.items()}, {n: len(k) for n, k in session.mixed.items()})
    given = {name: Mixed(len(session.mixed[name]), o.columns) for name, o in outcomes.items()}
    notes.append("cosines by the judge; beyond random: the change of the cosine, minus that by as many random latents")
    assert session.run is not None
    model = session.run.asked
    if request.judge.partition(":")[2] in (model.model, f"{model.model}|{model.pretrained}"):
        notes.append("the judge is the model of the run, so its scores are circular; pass another --judge")
    return scored(request.judge, given, request.ordered_doses, compared_with(request, session.references))


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
    unasked = run is not None and not request.edit and request.edits is None and not request.mix
    choice = run.chosen_edit() if run is not None and unasked else None
    return _Session(request, run, dictionary, modality, choice)


def _row_of(candidate: Any) -> dict[str, Any]:
    return {
        "latent": candidate.latent,
        "name": candidate.name,
        "evidence": candidate.evidence,
        "reach": candidate.reach,
        "level": candidate.level,
    }
