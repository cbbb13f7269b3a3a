"""Score the held-out pairs in one pass: all metrics and the top samples. Then name the latents from what was found."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from cliplens import api, registry
from cliplens.contracts import Judge, Metric
from cliplens.exemplars import save_exemplars, save_positions, strongest
from cliplens.files import atomic_write, write_json
from cliplens.pairs import Pairs, RowAccount, is_emoji, open_image
from cliplens.progress import Bar
from cliplens.records import WARNING, Batch, Exemplars, GroundTruth, Pair, PairedActs, Positions, Units
from cliplens.run.context import RunContext
from cliplens.run.controls import LATENTS, TITLE, controls, first, first_batches, notes_of, table_of
from cliplens.run.degenerate import warnings_of, warnings_of_pairs
from cliplens.run.dictionary import by_modality, scored_on
from cliplens.run.memory import Kept
from cliplens.run.naming import EMBEDDING, name_found
from cliplens.run.positions import positions_of
from cliplens.run.scores import Scores
from cliplens.run.steps import StepLog, versions
from cliplens.run.targets import Targets, asked_of, truth_of, unit
from cliplens.run.trained_controls import trained_controls
from cliplens.run.units import units_of
from cliplens.sae import Dictionary, calibration_of
from cliplens.sites import Modality, Site
from cliplens.store import Cache, Embeddings
from cliplens.store.memory import trim_memory
from cliplens.tally import TopSamples, all_reduce, shards, tally

ROWS = 1024
EXEMPLARS = 64
"""Number of top samples per latent and modality from which names are made and on which they are tested."""
_TRIMMED = 2**26
"""Numbers of dense codes after which freed memory returns to the system: each batch at 65,536 latents. What metrics
keep of a batch lies between what they free, so the rest of the heap would grow with the pairs."""
SHOWN = 20
"""Number of top samples saved in the run folder."""


def score(context: RunContext, log: StepLog) -> None:
    """Score every latent. Writes scores/ and exemplars/."""
    with log.timed("score"):
        tops = [TopSamples(site.modality, top=EXEMPLARS) for site in context.settings.sites]
        kept: list[Batch] = []
        batches = _watched(first_batches(held_out_batches(context), kept), tops, shown=context.group.rank == 0)
        found = tally(batches, registry.made("metrics", Metric), decoder=context.dictionary.decoder)
        all_reduce(tops)
    if context.group.rank != 0:
        return
    with log.timed("controls"):
        if context.group.size > 1:  # the first batches of all processes, as one process sees them
            kept = first(held_out_batches(context, of_all=True))
        trained, missing = trained_controls(context, kept) if context.settings.controls else ({}, [])
        controlled = controls(kept, context.dictionary.decoder, trained)
    folder = context.folder
    shown = {modality: strongest(of_modality, SHOWN) for modality, of_modality in _exemplars(context, tops).items()}
    save_exemplars(folder.exemplars, shown.get("image"), shown.get("text"))
    with log.timed("positions"):
        save_positions(folder.exemplars, _positions(context, shown))
    scored = int(scored_on(context.settings)(context.cache.keys).sum())
    warned = warnings_of_pairs(scored, context.pairs.captions)
    warned += warnings_of(context.cache, context.settings, found.figures, context.dictionary)
    Scores(
        table=found.table,
        tops=tops,
        figures=found.figures,
        tables={**found.tables, TITLE: table_of(controlled)},
        controls=controlled,
        notes=[*warned, *found.notes],
        remarks=[*_notes(context), *notes_of(controlled), *missing],
        failed=found.failed,
    ).save(folder.scores)


def name(context: RunContext, log: StepLog) -> None:
    """Name every latent that was scored; writes latents.parquet, findings.json and, last, summary.json."""
    with log.timed("name"):
        scores = Scores.load(context.folder.scores, EXEMPLARS)
        exemplars = _exemplars(context, scores.tops)
        scores = replace(scores, tops=())  # what is shown of them is in `exemplars`
        names = name_found(context, exemplars, scores.table["alive"].astype(bool))
        table = scores.table.with_columns(names.columns, names.schema)
    folder = context.folder
    with atomic_write(folder.latents) as partial:
        table.save(partial)
    notes = [*scores.notes, *names.notes, *scores.remarks]
    tables = {**scores.tables, **names.tables}
    tables = {title: rows for title, rows in tables.items() if title != TITLE} | {TITLE: tables[TITLE]}
    write_json(folder.findings, {"tables": tables, "notes": notes, "failed": scores.failed})
    warnings = [note for note in notes if note.startswith(WARNING)]
    summary = {**_summary(context, scores.figures, names.figures, log), "controls": scores.controls}
    write_json(folder.summary, {**({"warnings": warnings} if warnings else {}), **summary})


def _exemplars(context: RunContext, tops: Sequence[TopSamples]) -> dict[Modality, Exemplars | None]:
    return {top.modality: top.exemplars(_pairs_of(context, top.ids)) for top in tops}


def _positions(context: RunContext, exemplars: Mapping[Modality, Exemplars | None]) -> Positions:
    asked = context.settings
    if isinstance(context.clip, Embeddings):
        return {}
    how: dict[str, Any] = {"batch_size": asked.forward_batch, "autocast": asked.autocast, "workers": asked.workers}
    return positions_of(context.clip, context.dictionary, asked.sites, exemplars, **how)


def _pairs_of(context: RunContext, ids: Sequence[str]) -> dict[str, Pair]:
    """Return the pairs with these ids, without opening others, because that would read every image of a tar."""
    return {pair_id: context.pairs[place] for pair_id, place in context.pairs.indices(ids).items()}


def _watched(batches: Iterator[Batch], tops: Sequence[TopSamples], *, shown: bool) -> Iterator[Batch]:
    coded = 0
    for batch in Bar(batches, desc="scoring", unit="batch", disable=not shown):
        for top in tops:
            top.update(batch)
        yield batch
        coded += len(batch.ids) * batch.codes.d_sae
        if coded >= _TRIMMED:
            trim_memory()
            coded = 0


def held_out_batches(context: RunContext, *, of_all: bool = False) -> Iterator[Batch]:
    """Yield the scored pairs in batches for the metrics.

    Args:
        context: the run.
        of_all: return the batches of all processes; by default each process gets its own.
    """

    def read() -> Iterator[_Scored]:
        return _scored(context, of_all=of_all)

    given: Iterable[_Scored] = read()
    if context.memory is not None:
        asked = context.settings
        same = ("scored", asked.sites, asked.held_out, asked.sae is None, asked.target)
        given = context.memory.once(same, lambda: Kept(read))
    yield from (scored.coded(context.dictionary) for scored in given)


@dataclass(frozen=True)
class _Scored:
    """The data of one batch of scored pairs that do not depend on the dictionary."""

    raw: PairedActs
    judged: Mapping[str, PairedActs]
    truth: GroundTruth | None
    targets: Targets
    units: Units

    @property
    def bytes(self) -> int:
        """Memory of the activations and embeddings."""
        held = [rows for acts in (self.raw, *self.judged.values()) for rows in (acts.image, acts.text)]
        return sum(rows.nbytes for rows in held if rows is not None)

    def coded(self, dictionary: Dictionary) -> Batch:
        """Return the batch for the metrics with the codes of a dictionary."""
        batch = dictionary.batch(self.raw, judged=self.judged, truth=self.truth, targets=self.targets)
        return replace(batch, codes=replace(batch.codes, units=self.units))


def _scored(context: RunContext, *, of_all: bool) -> Iterator[_Scored]:
    settings = context.settings
    truth = truth_of(settings.pairs)
    read = partial(context.cache.batches, keep=scored_on(settings), batch_size=ROWS)
    acts = read(**by_modality(settings.sites))
    finals = by_modality([Site(side, EMBEDDING) for side in settings.sides])
    ids = np.array(context.cache.ids)[scored_on(settings)(context.cache.keys)].tolist()
    units = units_of(context.pairs, ids)
    embeddings, ask = read(**finals), asked_of(context, finals, units)
    place = context.pairs.indices(context.cache.ids) if context.judge else {}
    both = zip(acts, embeddings, strict=True)
    for raw, embedded in both if of_all else shards(both):
        final = unit(embedded)
        judged = {"clip": final}
        if context.judge is not None:
            judged[context.judge.name] = _judged(context.judge, [context.pairs[place[i]] for i in embedded.ids], raw)
        in_step = {name: _repeated(given, raw.ids) for name, given in judged.items()}
        yield _Scored(raw, in_step, truth, ask(final), units(raw.ids))


def _judged(judge: Judge, pairs: Sequence[Pair], raw: PairedActs) -> PairedActs:
    """Return the judge's embeddings of the samples that the dictionary encoded."""
    return judge.embed(*samples_of(pairs, raw.image is not None, raw.text is not None), [pair.id for pair in pairs])


def samples_of(
    pairs: Sequence[Pair], images: bool, captions: bool
) -> tuple[list[Image.Image] | None, list[str] | None]:
    """Return images and captions of pairs as a judge takes them; None where a run of embeddings was given none."""
    has_images = images and all(pair.source is not None for pair in pairs)
    has_captions = captions and all(pair.caption is not None for pair in pairs)
    return (
        [open_image(pair) for pair in pairs] if has_images else None,
        [pair.caption or "" for pair in pairs] if has_captions else None,
    )


def _repeated(judged: PairedActs, ids: Sequence[str]) -> PairedActs:
    """Repeat the embedding of each sample for all of its rows (one per patch or token)."""
    if len(ids) == len(judged.ids):
        return judged
    place = {pair_id: n for n, pair_id in enumerate(judged.ids)}
    at = torch.tensor([place[pair_id] for pair_id in ids])
    image, text = (None if rows is None else rows[at] for rows in (judged.image, judged.text))
    return PairedActs(tuple(ids), image, text)


def _notes(context: RunContext) -> list[str]:
    notes = []
    if context.dictionary.d_sae > LATENTS:
        notes.append(f"The controls compare {LATENTS:,} latents, drawn at random; explained variance is that of all.")
    if context.cache.truncated:
        notes.append(f"{context.cache.truncated} captions were longer than the model's context and were truncated.")
    if isinstance(context.clip, Embeddings):
        notes.append(
            "Embeddings without a model: words are embedded by the captions that contain them, and activations at "
            "patches or tokens are not shown. Fidelity, causal effects and steering need a model (--model and --pairs)."
        )
        if context.settings.sae is not None:
            notes.append(
                "The dictionary was given. Whether it was made on embeddings of the same model, scale and normalisation"
                " cannot be told from the arrays: see whether explained variance is as high as where it was trained."
            )
    if context.clip.identity.name.startswith("world") and not context.settings.pairs.startswith(api.WORLD_PREFIX):
        notes.append(
            "Out of domain: the embedded model was trained only on drawings and captions of its own world. On other "
            "pairs it shows that the software works, but says nothing about the pairs."
        )
    if context.clip.identity.name.startswith("emoji") and not is_emoji(context.settings.pairs):
        notes.append(
            "Out of domain, unless your pairs are drawings of emoji: this model was trained only on those and their "
            "names. On other pairs it shows that the software works, but says nothing about the pairs."
        )
    if context.judge is None:
        notes.append(
            "Monosemanticity is judged by the model's own final embedding (judge 'clip'), which is circular: use it to "
            "compare latents, and quote it only together with an independent judge (--judge)."
        )
    return notes


def account_of(pairs: Pairs, cache: Cache) -> RowAccount:
    """Return the numbers of rows of the source that are used, quarantined and left out."""
    return pairs.account({pairs.id_at(index) for record in cache.records for index, _ in record.bad})


def _summary(
    context: RunContext, scoring: Mapping[str, Any], naming: Mapping[str, Any], log: StepLog
) -> dict[str, Any]:
    measured = calibration_of(context.dictionary.sae.cfg.metadata)
    return {
        "pairs": len(context.cache.ids),
        "quarantined": context.cache.quarantined,
        "rows": asdict(account_of(context.pairs, context.cache)),
        "truncated": context.cache.truncated,
        "model": context.settings.model,
        "sites": [str(site) for site in context.settings.sites],
        "d_in": context.dictionary.d_in,
        "d_sae": context.dictionary.d_sae,
        **({} if measured is None else {"threshold": asdict(measured)}),
        **scoring,
        **naming,
        "seconds": log.seconds,
        "versions": versions(),
    }
