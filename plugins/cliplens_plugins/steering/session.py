"""Run one steering session: apply edits over doses, measure the effect, and write one folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cliplens import registry
from cliplens.contracts import AttributeReader
from cliplens.edits import Edit, LatentSteering, identity_of, load_edits, save_edits
from cliplens.errors import InputError, PluginError
from cliplens.files import write_json
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, open_dictionary
from cliplens.sites import Modality
from cliplens_plugins.steering import clip_steering, readers
from cliplens_plugins.steering.answers import answers, is_answering
from cliplens_plugins.steering.choosing import Choice
from cliplens_plugins.steering.drawing import Strip, open_pipeline, samples_to_draw, through_generator, through_pipeline
from cliplens_plugins.steering.page import save_page
from cliplens_plugins.steering.parsing import Group, parse_edits
from cliplens_plugins.steering.pictures import burnt, save_strip, sharpness
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.sources import Run

Rows = list[dict[str, Any]]
DRAWN = 4
"""Number of held-out pictures in a strip."""
MEASURED = 48
"""Number of held-out pictures on which success is measured."""
MEASURED_UNASKED = 16
"""The same number without an edit from the user, as at the end of the demo, which must be fast."""
_CHANGED = "changed: Kullback-Leibler divergence of the next-token distribution from dose 0, in nats"
_PROXIES = "sharpness and burnt are proxies of picture quality; compare them with dose 0"


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

    @property
    def generator(self) -> str | None:
        """The generator that can draw this run's embeddings; None if CLIP itself is steered."""
        assert self.run is not None
        if self.request.generator is not None:
            return None if self.request.generator == "none" else self.request.generator
        return "world" if self.run.asked.model == "world" and "image" in self.run.modalities else None

    @property
    def aim(self) -> str | None:
        """The intended effect of the edit, as attribute=value or a phrase; None if unknown."""
        return self.request.measure or (self.choice.aim if self.choice else None)

    def steering(self) -> LatentSteering:
        """Return the edits of the request as a steering object at dose 1."""
        request = self.request
        edits: list[Edit] = [] if request.edits is None else load_edits(request.edits, self.dictionary)
        for text in request.edit:
            edits += self._parsed(text)
        if self.choice is not None:
            edits += self._parsed(self.choice.text)
        return LatentSteering(self.dictionary, edits, use_error_term=request.error_term, reference=self._reference())

    def _parsed(self, text: str) -> list[Edit]:
        run = self.run
        if run is None or self.request.sae is not None or not run.scored:
            return parse_edits(text)
        return parse_edits(text, self._found, table=run.table, level=run.level(self.modality))

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
    steering = session.steering()
    labels, measured, notes, more = _done(session, steering)
    request.out.mkdir(parents=True, exist_ok=True)
    strip: Strip | None = more.pop("strip", None)
    if strip is not None:
        heads = [f"dose {d:g}" for d in request.ordered_doses]
        save_strip(request.out / "strip.png", list(zip(*strip.columns, strict=True)), heads, labels)
    save_edits(request.out / "edits.json", steering.edits, session.dictionary)
    found = {
        "asked": {k: v for k, v in asdict(request).items() if v not in (None, ())},
        "dictionary": identity_of(session.dictionary),
        "edits": [asdict(e) for e in steering.edits],
        "latents": session.taken,
        "aim": more.pop("aim", session.aim),
        "doses": list(dict.fromkeys(row["dose"] for row in measured)),
        "samples": labels,
        "measured": measured,
        "notes": notes,
        **more,
    }
    write_json(request.out / "steering.json", found)
    save_page(request.out / "steering.html", found, [] if strip is None else strip.columns, labels)
    return found


def _open(request: SteeringRequest) -> _Session:
    run = None if request.run is None else Run(RunFolder.open(request.run))
    if request.sae is not None:
        dictionary = open_dictionary(request.sae)
    else:
        assert run is not None
        dictionary = run.dictionary
    modality: Modality = "text" if request.prompts and not request.images else "image"
    if run is not None and request.pipeline is None and not request.prompts and "image" not in run.modalities:
        modality = "text"
    choice = run.chosen_edit() if run is not None and not request.edit and request.edits is None else None
    return _Session(request, run, dictionary, modality, choice)


def _done(session: _Session, steering: LatentSteering) -> tuple[list[str], Rows, list[str], dict[str, Any]]:
    """Return labels, rows of figures, notes and further entries of steering.json."""
    request = session.request
    if request.pipeline is not None and is_answering(request.pipeline):
        doses = tuple(sorted(request.ordered_doses, key=abs))
        rows = answers(request.pipeline, request.prompts, request.images, steering, doses, site=request.site)
        return [path.name for path in request.images], rows, [_CHANGED], {}
    if request.pipeline is not None:
        strip = through_pipeline(request, open_pipeline(request), steering)
        rows, notes = _of_pictures(session, strip)
        return strip.labels, rows, [*notes, *_standing_still(rows, "conditioning moved")], {"strip": strip}
    assert session.run is not None
    if session.generator is None:
        keep = session.choice.starts_from if session.choice else lambda _: True
        samples = clip_steering.samples_of(session.run, request, keep)
        rows, notes = clip_steering.over_doses(session.run, request, steering, samples)
        return samples.labels, rows, [*notes, *_standing_still(rows, "activations moved")], {}
    return _on_the_generator(session, session.generator, steering)


def _on_the_generator(
    session: _Session, generator: str, steering: LatentSteering
) -> tuple[list[str], Rows, list[str], dict[str, Any]]:
    """Draw a strip of a few pictures, and measure success on more pictures if the generator has a reader."""
    run, request = session.run, session.request
    assert run is not None
    aim = session.aim if request.judge else _aim(session, generator)
    if aim is not None and request.measure is None and not _is_ready(generator):
        aim = None
    keep = _not_yet(aim, session) if request.judge is None else (lambda _: True)
    least = MEASURED if request.edit or request.edits else MEASURED_UNASKED
    count = max(least, request.pairs or DRAWN) if aim and request.judge is None else (request.pairs or DRAWN)
    labels, given = samples_to_draw(run, request, keep, count)
    whole = through_generator(request, generator, run, steering, (labels, given))  # type: ignore[arg-type]
    shown = request.pairs or (len(labels) if request.prompts or request.images else DRAWN)
    strip = Strip(labels[:shown], [column[:shown] for column in whole.columns], whole.movement)
    rows, notes = _of_pictures(session, strip)
    more: dict[str, Any] = {"strip": strip, "aim": aim}
    if aim is not None and request.judge is None:
        figures, suggested = readers.attributes(generator, aim, request.ordered_doses, whole.columns)
        if not figures:
            return strip.labels, rows, [*notes, f"every sample already shows {aim} at dose 0"], more
        rows = [{**row, **extra} for row, extra in zip(rows, figures, strict=True)]
        notes.append(f"{aim}: share of {len(labels)} held-out pictures read so, by a network that saw pictures only")
        more |= {"suggested_dose": suggested, "measured_on": len(labels)}
        if request.control:
            random = through_generator(request, generator, run, steering, (labels, given), control=True)  # type: ignore[arg-type]
            beside, _ = readers.attributes(generator, aim, request.ordered_doses, random.columns)
            rows = [{**row, f"{aim} by a random edit": r[aim]} for row, r in zip(rows, beside, strict=True)]
    return strip.labels, rows, [*notes, *_standing_still(rows, "embedding moved")], more


def _aim(session: _Session, generator: str) -> str | None:
    """Return the aim as attribute=value: from --measure, from the chosen edit, or from the target of red->blue."""
    if session.aim is not None:
        return session.aim
    try:
        values = registry.find("readers", generator).make(AttributeReader).values
    except (PluginError, InputError):
        return None
    words = [t.split("=")[0].split("~")[0].split("->")[-1].strip().casefold() for t in session.request.edit]
    hits = [f"{name}={value}" for word in words for name, known in values.items() for value in known if value == word]
    return hits[0] if len(hits) == 1 else None


def _is_ready(generator: str) -> bool:
    """Return whether the generator's reader is trained already."""
    try:
        return bool(getattr(registry.find("readers", generator).make(AttributeReader), "ready", True))
    except (PluginError, InputError):
        return False


def _not_yet(aim: str | None, session: _Session) -> Any:
    """Return a function of a pair id: whether the pair shows the value to change, or does not show the target yet."""
    if session.choice is not None:
        return session.choice.starts_from
    run = session.run
    if aim is None or run is None or not str(run.asked.pairs).startswith("world:"):
        return lambda _: True
    from cliplens.world import FACTORS, ground_truth

    attribute, _, value = aim.partition("=")
    if attribute not in FACTORS or value not in FACTORS[attribute].values:
        return lambda _: True
    known = FACTORS[attribute].values
    own = [t.split("->")[0].strip().casefold() for t in session.request.edit if "->" in t]
    wanted = {known.index(o) for o in own if o in known} or {n for n, v in enumerate(known) if v != value}
    return lambda pair_id: int(ground_truth([pair_id]).factors[attribute][0]) in wanted


def _of_pictures(session: _Session, strip: Strip) -> tuple[Rows, list[str]]:
    """Return figures of the pictures: movement, distance from dose 0, proxies of quality, similarity."""
    request, doses = session.request, session.request.ordered_doses
    distances = _from_dose_0(strip, doses)
    rows: Rows = [
        {
            "dose": dose,
            **moved,
            "picture moved": distance,
            "sharpness": sum(map(sharpness, pictures)) / len(pictures),
            "burnt": sum(map(burnt, pictures)) / len(pictures),
        }
        for dose, moved, distance, pictures in zip(doses, strip.movement, distances, strip.columns, strict=True)
    ]
    notes = [_PROXIES]
    if request.measure is not None and request.judge is not None:
        more = readers.similarities(request.judge, request.measure, request.prompts, strip.columns)
        notes.append("similarity is a cosine by the judge; the judge should not be the model steered")
        rows = [{**row, **extra} for row, extra in zip(rows, more, strict=True)]
    return rows, notes


def _from_dose_0(strip: Strip, doses: Sequence[float]) -> list[float]:
    at = list(doses).index(0.0)
    first = Strip(strip.labels, [strip.columns[at], *strip.columns])
    return first.distances()[1:]


def _standing_still(rows: Rows, column: str) -> list[str]:
    """Return a note if no dose changed anything."""
    moved = [row[column] for row in rows if row["dose"] != 0 and column in row]
    if moved and all(value == 0 for value in moved):
        return ["no effect: nothing changed at any dose; the edited latents may not fire on these samples"]
    return []


def _row_of(candidate: Any) -> dict[str, Any]:
    return {
        "latent": candidate.latent,
        "name": candidate.name,
        "evidence": candidate.evidence,
        "reach": candidate.reach,
        "level": candidate.level,
    }
