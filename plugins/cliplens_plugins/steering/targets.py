"""What a session steers, over doses: a pipeline, a model that answers, CLIP itself, or a generator of embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from cliplens import registry
from cliplens.contracts import AttributeReader
from cliplens.errors import InputError, PluginError
from cliplens.sites import Site
from cliplens_plugins.steering import clip_steering, readers
from cliplens_plugins.steering.answers import Answering, answers
from cliplens_plugins.steering.choosing import Choice
from cliplens_plugins.steering.drawing import (
    Plain,
    Strip,
    as_trained,
    each_of,
    samples_to_draw,
    through_generator,
    through_pipeline,
)
from cliplens_plugins.steering.figures import Rows, standing_still, with_mean
from cliplens_plugins.steering.given import is_caption, picture_at
from cliplens_plugins.steering.opening import open_pipeline
from cliplens_plugins.steering.parsing import aimed_at
from cliplens_plugins.steering.pictures import burnt, sharpness
from cliplens_plugins.steering.ports import diffusion
from cliplens_plugins.steering.request import SteeringRequest
from cliplens_plugins.steering.same_model import check_same_model
from cliplens_plugins.steering.sources import Run
from cliplens_plugins.steering.through_projection import Projection, ThroughProjection, projection_for

DRAWN = 4
"""Number of held-out pictures in a strip."""
MEASURED = 48
"""Number of held-out pictures on which success is measured."""
MEASURED_UNASKED = 16
"""The same number without an edit from the user, as at the end of the demo, which must be fast."""
_CHANGED = "changed: Kullback-Leibler divergence of the next-token distribution from dose 0, in nats"
_PROXIES = "sharpness and burnt are proxies of picture quality; compare them with dose 0"


@dataclass(frozen=True)
class Outcome:
    """What one edit did over the doses."""

    labels: list[str]
    """Of the samples."""
    rows: Rows
    notes: list[str]
    columns: list[list[Image.Image]] = field(default_factory=list)
    """Pictures per dose, the same samples in each; empty where none are drawn."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further entries of steering.json."""


@runtime_checkable
class Target(Protocol):
    """Something to steer; opened once, steered by each edit of a session."""

    def over_doses(self, steering: Any) -> Outcome:
        """Return what a steering does at each dose."""


@dataclass(frozen=True)
class AnsweringTarget:
    """A multimodal language model."""

    request: SteeringRequest

    @cached_property
    def _model(self) -> Answering:
        assert self.request.pipeline is not None
        return Answering.open(self.request.pipeline)

    def over_doses(self, steering: Any) -> Outcome:
        """Return the answers at each dose."""
        request = self.request
        doses = [0.0, *(d for d in request.ordered_doses if d != 0)]  # figures compare with dose 0, so it runs first
        rows = answers(self._model, request.prompts, request.images, steering, doses, site=request.site)
        return Outcome([path.name for path in request.images], rows, [_CHANGED])


@dataclass(frozen=True)
class PipelineTarget:
    """A diffusers pipeline."""

    request: SteeringRequest
    run: Run | None = None
    plain: Plain = field(default_factory=dict)
    """Pictures at dose 0 by seed, which every edit starts from."""

    @cached_property
    def _pipeline(self) -> Any:
        return open_pipeline(self.request)

    def over_doses(self, steering: Any) -> Outcome:
        """Return pictures at each dose, how far they moved, and their similarity with a phrase."""
        each = each_of(steering)
        site = self._site(each[0])
        sites = tuple(each[0].sites if site is None else (Site.parse(site),))
        through = self._projection(sites)
        if through is not None:
            each, site = tuple(ThroughProjection(one, *through) for one in each), None
        elif self.request.mix:
            self._check_same(sites)
        strip = through_pipeline(replace(self.request, site=site), self._pipeline, each, self.plain)
        rows, notes = _of_pictures(self.request, strip)
        return Outcome(strip.labels, rows, [*notes, *standing_still(rows, "conditioning moved")], strip.columns)

    def _site(self, steering: Any) -> str | None:
        """Return the site asked for; for a mix, else, the site at which the pipeline has an image embedding."""
        if self.request.site is not None or not self.request.mix:
            return self.request.site
        return next((str(s) for s in steering.sites if s.side == "vision" and diffusion.has(self._pipeline, s)), None)

    def _projection(self, sites: tuple[Site, ...]) -> tuple[Projection, bool] | None:
        """Return the projection through which the sites are steered; computed once for all edits of a session."""
        if sites not in self._projections:
            self._projections[sites] = projection_for(self._pipeline, sites, self.run)
        return self._projections[sites]

    def _check_same(self, sites: tuple[Site, ...]) -> None:
        """Check once that the pipeline has the encoder of the run, whose codes of the reference are mixed in."""
        if self.run is not None and sites not in self._compared:
            self._compared.add(sites)
            paths = self.request.ip_images or self.request.images
            check_same_model(self._pipeline, sites, self.run, picture_at(paths[0]) if paths else None)

    @cached_property
    def _compared(self) -> set[tuple[Site, ...]]:
        return set()

    @cached_property
    def _projections(self) -> dict[tuple[Site, ...], tuple[Projection, bool] | None]:
        return {}


@dataclass(frozen=True)
class ClipTarget:
    """CLIP itself."""

    request: SteeringRequest
    run: Run
    choice: Choice | None

    @cached_property
    def _samples(self) -> clip_steering.Samples:
        keep = self.choice.starts_from if self.choice else lambda _: True
        return clip_steering.samples_of(self.run, self.request, keep)

    def over_doses(self, steering: Any) -> Outcome:
        """Return zero-shot classification, retrieval and movement at each dose."""
        rows, notes = clip_steering.over_doses(self.run, self.request, steering, self._samples)
        return Outcome(self._samples.labels, rows, [*notes, *standing_still(rows, "activations moved")])


@dataclass(frozen=True)
class GeneratorTarget:
    """A generator that draws embeddings of a run's model."""

    request: SteeringRequest
    run: Run
    generator: str
    choice: Choice | None

    @cached_property
    def aim(self) -> str | None:
        """The aim as attribute=value: from --measure, the chosen edit, or the target of red->blue; None if unknown."""
        request = self.request
        if request.measure or request.judge:
            return request.measure
        aim = self.choice.aim if self.choice else self._aim_of_words()
        return aim if aim is None or _is_ready(self.generator) else None

    def _aim_of_words(self) -> str | None:
        try:
            values = registry.find("readers", self.generator).make(AttributeReader).values
        except (PluginError, InputError):
            return None
        words = [aimed_at(text).casefold() for text in self.request.edit]
        hits = [
            f"{name}={value}" for word in words for name, known in values.items() for value in known if value == word
        ]
        return hits[0] if len(hits) == 1 else None

    @cached_property
    def _samples(self) -> tuple[list[str], Sequence[Any]]:
        request, measures = self.request, self.aim is not None and self.request.judge is None
        least = MEASURED if request.edit or request.edits else MEASURED_UNASKED
        count = max(least, request.pairs or DRAWN) if measures else (request.pairs or DRAWN)
        keep = self._not_yet if request.judge is None else lambda _: True
        labels, given = samples_to_draw(self.run, request, keep, count)
        return labels, as_trained(request, self.generator, given) if request.prompts else given

    def _rewritten(self) -> list[str]:
        """Return notes on prompts and references that are written out."""
        said = {"drawn": self.request.prompts, "mixed in": [r for r in self.request.reference if is_caption(r)]}
        notes = [
            f"{text!r} is {how} as {written!r}"
            for how, texts in said.items()
            for text, written in zip(texts, as_trained(self.request, self.generator, texts), strict=True)
            if text != written
        ]
        return list(dict.fromkeys(notes))

    def over_doses(self, steering: Any) -> Outcome:
        """Return a strip of a few pictures, and success on more pictures if the generator has a reader."""
        request, aim = self.request, self.aim
        measures = aim is not None and request.judge is None
        if measures:
            readers.reader_of(
                self.generator, str(aim)
            )  # an aim that cannot be read is refused before anything is drawn
        whole = through_generator(request, self.generator, self.run, steering, self._samples)
        own = request.prompts or request.images or len(request.all_seeds) > 1
        strip = whole.first(request.pairs or (len(whole.labels) if own else DRAWN))
        rows, notes = _of_pictures(request, strip)
        notes += self._rewritten()
        more: dict[str, Any] = {"aim": aim}
        if measures:
            figures, suggested = readers.attributes(self.generator, str(aim), request.ordered_doses, whole.columns)
            if not figures:
                notes.append(f"every sample already shows {aim} at dose 0")
                return Outcome(strip.labels, rows, notes, strip.columns, more)
            rows = [{**row, **extra} for row, extra in zip(rows, figures, strict=True)]
            n = len(whole.labels)
            notes.append(f"{aim}: share of {n} held-out pictures read so, by a network that saw pictures only")
            more |= {"suggested_dose": suggested, "measured_on": n}
        return Outcome(strip.labels, rows, [*notes, *standing_still(rows, "embedding moved")], strip.columns, more)

    def _not_yet(self, pair_id: str) -> bool:
        """Return whether the pair shows the value to change, or does not show the target yet."""
        if self.choice is not None:
            return self.choice.starts_from(pair_id)
        return self._starts_from is None or self._starts_from(pair_id)

    @cached_property
    def _starts_from(self) -> Any:
        if self.aim is None or not str(self.run.asked.pairs).startswith("world:"):
            return None
        from cliplens.world import FACTORS, ground_truth

        attribute, _, value = self.aim.partition("=")
        if attribute not in FACTORS or value not in FACTORS[attribute].values:
            return None
        known = FACTORS[attribute].values
        own = [t.split("->")[0].strip().casefold() for t in self.request.edit if "->" in t]
        wanted = {known.index(o) for o in own if o in known} or {n for n, v in enumerate(known) if v != value}
        return lambda pair_id: int(ground_truth([pair_id]).factors[attribute][0]) in wanted


def _is_ready(generator: str) -> bool:
    """Return whether the generator's reader is trained already."""
    try:
        return bool(getattr(registry.find("readers", generator).make(AttributeReader), "ready", True))
    except (PluginError, InputError):
        return False


def _of_pictures(request: SteeringRequest, strip: Strip) -> tuple[Rows, list[str]]:
    """Return figures of the pictures: movement, distance from dose 0, proxies of quality, similarity."""
    doses = request.ordered_doses
    distances = strip.distances(list(doses).index(0.0))
    rows: Rows = [
        {
            "dose": dose,
            **moved,
            **with_mean("picture moved", distance),
            "sharpness": sum(map(sharpness, pictures)) / len(pictures),
            "burnt": sum(map(burnt, pictures)) / len(pictures),
        }
        for dose, moved, distance, pictures in zip(doses, strip.movement, distances, strip.columns, strict=True)
    ]
    notes = [_PROXIES]
    if request.measure is not None and request.judge is not None:
        prompts = request.prompts * len(request.all_seeds)
        more = readers.similarities(request.judge, request.measure, prompts, strip.columns)
        notes.append("similarity is a cosine by the judge; the judge should not be the model steered")
        rows = [{**row, **extra} for row, extra in zip(rows, more, strict=True)]
    return rows, notes
