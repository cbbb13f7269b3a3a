"""Controls that have to be trained, for `--controls`: a frozen decoder, an untrained model, and other seeds.

| control | what it is | source |
|---|---|---|
| `frozen_decoder` | the run's dictionary, its decoder left at the random initial values | arXiv 2602.14111 |
| `untrained_model` | the run's dictionary on the model with the entries of every weight tensor shuffled | ours |
| `reseeds` | the run's dictionary from other seeds | arXiv 2605.18229 |

Shuffled weights keep the architecture and the distribution of the weights and lose what was learned. Heap et al. (arXiv
2501.17727) draw new weights from a Gaussian of the same mean and variance instead.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cliplens import keys
from cliplens.hooked import HookedCLIP
from cliplens.progress import Bar
from cliplens.records import Batch, PairedActs
from cliplens.run.context import RunContext
from cliplens.run.controls import Scored
from cliplens.run.dictionary import train_again, trained_on, training_rows
from cliplens.run.naming import EMBEDDING
from cliplens.run.targets import unit
from cliplens.sae import Dictionary, needs_pairs
from cliplens.settings import Settings
from cliplens.sites import MODALITIES, Site
from cliplens.store import Embeddings, Provider
from cliplens.stream import stream

SEEDS = 3
"""Dictionaries trained from other seeds."""
UNTRAINED_PAIRS = 8192
"""Pairs that the untrained model is shown: those that controls are taken over, and others to train on."""
_MANY_ROWS_PAIRS = 1024
"""The same where a pair has many rows (`--token patches` or `all`)."""
_SEED = 19


def trained_controls(context: RunContext, kept: Sequence[Batch]) -> tuple[dict[str, list[Scored]], list[str]]:
    """Return the batches of each control, and notes on controls that cannot be had.

    Args:
        context: the run; of several processes each trains the same.
        kept: the batches that controls are taken over.
    """
    cache = context.cache
    settings = replace(context.settings, d_sae=context.dictionary.d_sae)  # however wide the default is
    _say("a dictionary with a frozen decoder")
    frozen = train_again(training_rows(cache, settings), settings, frozen_decoder=True)
    found = {"frozen_decoder": [_by(frozen, kept)], "reseeds": []}
    for n in range(SEEDS):
        _say(f"a dictionary from another seed, {n + 1} of {SEEDS}")
        other = replace(settings, seed=settings.seed + 1 + n)
        found["reseeds"].append(_by(train_again(training_rows(cache, other), other), kept))
    if isinstance(context.clip, Embeddings):
        return found, ["Embeddings without a model have no control with an untrained model."]
    _say("a dictionary on the model with shuffled weights")
    found["untrained_model"] = [_of_untrained_model(context.clip, context, kept)]
    return found, []


def _say(what: str) -> None:
    Bar.write(f"controls: training {what}", file=sys.stderr)


@contextmanager
def shuffled_weights(model: nn.Module, seed: int = _SEED) -> Iterator[None]:
    """Shuffle the entries of every weight tensor of a model inside the block; restore them, bit for bit, after it."""
    weights = [p for p in model.parameters() if p.numel() > 1]
    before = [w.detach().clone() for w in weights]
    draw = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight in weights:
                order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def _by(dictionary: Dictionary, kept: Sequence[Batch]) -> Scored:
    """Return the batches with the codes of another dictionary on the same raw activations."""
    return [_encoded(dictionary, batch, batch.raw, batch.judged) for batch in kept], dictionary.decoder


def _encoded(dictionary: Dictionary, like: Batch, raw: PairedActs | None, judged: Mapping[str, PairedActs]) -> Batch:
    assert raw is not None
    batch = dictionary.batch(raw, judged=judged, truth=like.truth, targets=like.targets)
    return replace(batch, codes=replace(batch.codes, units=like.codes.known_units))


def _of_untrained_model(clip: HookedCLIP, context: RunContext, kept: Sequence[Batch]) -> Scored:
    settings = context.settings
    scored = list(dict.fromkeys(i for batch in kept for i in batch.ids))
    training = _training_ids(context, _most_pairs(settings) - len(scored))
    with shuffled_weights(clip.model):
        seen, final = (
            _read(context, clip, scored + training, sites)
            for sites in (settings.sites, [Site(side, EMBEDDING) for side in settings.sides])
        )
    finals, places, row_of = unit(final), _places(seen.ids), {i: n for n, i in enumerate(final.ids)}
    dictionary = _trained(
        replace(settings, d_sae=context.dictionary.d_sae), _rows(seen, np.concatenate([places[i] for i in training]))
    )
    batches = []
    for batch in kept:
        raw = _rows(seen, np.concatenate([places[i] for i in dict.fromkeys(batch.ids)]))
        own = _rows(finals, np.array([row_of[i] for i in raw.ids]))
        batches.append(_encoded(dictionary, batch, raw, {**batch.judged, "clip": own}))
    return batches, dictionary.decoder


def _most_pairs(settings: Settings) -> int:
    return _MANY_ROWS_PAIRS if settings.token in ("patches", "all") else UNTRAINED_PAIRS


def _training_ids(context: RunContext, count: int) -> list[str]:
    """Return the pairs the dictionary is trained on with the smallest hashed keys."""
    of_pair = context.cache.keys
    mine = np.flatnonzero(trained_on(context.settings)(of_pair))
    first = mine[np.argsort(keys.hashed(of_pair[mine], _SEED), kind="stable")[: max(count, 1)]]
    return [context.cache.ids[n] for n in first]


def _read(context: RunContext, clip: HookedCLIP, ids: Sequence[str], sites: Sequence[Site]) -> PairedActs:
    asked = context.settings
    places = context.pairs.indices(ids)
    token = asked.token if tuple(sites) == tuple(asked.sites) else "auto"
    how = {"token": token, "forward_batch": asked.forward_batch, "workers": asked.workers}
    parts = list(stream(clip, context.pairs.take([places[i] for i in ids]), sites, **how))  # type: ignore[arg-type]
    image, text = ([rows.cpu() for p in parts if (rows := p.of(m)) is not None] for m in MODALITIES)
    return PairedActs(
        tuple(i for p in parts for i in p.ids), torch.cat(image) if image else None, torch.cat(text) if text else None
    )


def _trained(settings: Settings, acts: PairedActs) -> Dictionary:
    return train_again(
        Provider.from_acts(
            acts,
            centre=settings.centre,
            batch_size=settings.batch_size,
            seed=settings.seed,
            paired=needs_pairs(settings.architecture),
        ),
        settings,
    )


def _places(ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the rows of each id, in order."""
    found: dict[str, list[int]] = {}
    for row, pair_id in enumerate(ids):
        found.setdefault(pair_id, []).append(row)
    return {pair_id: np.array(rows) for pair_id, rows in found.items()}


def _rows(acts: PairedActs, rows: np.ndarray) -> PairedActs:
    at = torch.as_tensor(rows)
    image, text = (None if acts.of(m) is None else acts.of(m)[at] for m in MODALITIES)  # type: ignore[index]
    return PairedActs(tuple(acts.ids[n] for n in rows), image, text)
