"""Define the target of the information decomposition: a label, or whether the model retrieves the pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from cliplens import api, keys
from cliplens.errors import InputError, unknown_name
from cliplens.pairs import LabelColumn, emoji_truth, is_emoji, read_labels
from cliplens.records import GroundTruth, PairedActs, Units
from cliplens.run.context import RunContext
from cliplens.run.dictionary import SitePair, scored_on
from cliplens.run.embeddings import labels_of_embeddings
from cliplens.settings import Settings
from cliplens.sites import MODALITIES

RETRIEVED = "retrieved"
POOL = 256
_SEED = 61
Targets = Mapping[str, Bool[np.ndarray, " row"]]
Ask = Callable[[PairedActs], Targets]
"""Function of unit-norm final embeddings of pairs that returns their targets."""
Label = Callable[[Sequence[str]], Bool[np.ndarray, " row"]]
"""Function of pair ids that returns which of them have the label."""
UnitsOf = Callable[[Sequence[str]], Units]
"""Function of pair ids that returns the pictures and texts that they share."""


def asked_of(context: RunContext, sites: SitePair, units: UnitsOf = Units.from_ids) -> Ask:
    """Return the function that computes the target `--target`; `sites` are those of the final embeddings."""
    settings = context.settings
    if settings.modalities != "both":
        return lambda embedded: {}
    if settings.target is not None:
        name, label = settings.target, label_of(settings)
        return lambda embedded: {name: label(embedded.ids)}
    pool = _pool(context, sites)
    return lambda embedded: {RETRIEVED: retrieved(embedded, pool, units)}


def label_of(settings: Settings) -> Label:
    """Return a function of pair ids that returns whether each has the label `settings.target`.

    Raises:
        InputError: the target does not have the form COLUMN=VALUE.
        PairsError: the pairs have no such column.
        UnknownNameError: the pairs have no such factor, or no pair has that value.
    """
    column, equals, value = (settings.target or "").partition("=")
    if not equals:
        raise InputError(
            expected="--target COLUMN=VALUE",
            found=repr(settings.target),
            fix="pass a column and a value, such as --target shape=circle",
        )
    truth = truth_of(settings.pairs)
    if truth is not None:
        if column not in truth.values:
            raise unknown_name("factor of the pairs", column, truth.values)
        if value not in truth.values[column]:
            raise unknown_name(f"value of {column}", value, truth.values[column])
        return lambda ids: truth.rows(ids)[column] == truth.values[column].index(value)
    labels = labels_of(settings, column)
    if value not in labels.values:
        raise unknown_name(f"value of the column {column!r}", value, labels.values)
    return lambda ids: np.array([labels[i] == value for i in ids], dtype=bool)


def labels_of(settings: Settings, column: str) -> LabelColumn:
    """Return a column beside the pairs of a run, or beside the captions of its embeddings, by pair id.

    Raises:
        InputError: the captions of the embeddings are in no table.
        PairsError: the pairs have no such column.
        UnknownNameError: pairs of emoji have no such factor.
    """
    if settings.embeddings and not settings.pairs:
        return labels_of_embeddings(settings, column)
    return read_labels(
        settings.pairs,
        column,
        image_column=settings.image_column,
        id_column=settings.id_column,
        image_root=settings.image_root,
        delimiter=settings.delimiter,
        quoting=settings.quoting or "auto",
    )


def truth_of(pairs: str) -> GroundTruth | None:
    """Return the ground truth of pairs of the embedded world and of emoji; None for other pairs."""
    if is_emoji(pairs):
        return emoji_truth(pairs)
    if not pairs.startswith(api.WORLD_PREFIX):
        return None
    from cliplens.world import ground_truth

    count, seed = api.parse_world(pairs)
    return ground_truth(count, seed=seed)


def retrieved(embedded: PairedActs, pool: PairedActs, units: UnitsOf = Units.from_ids) -> Bool[np.ndarray, " row"]:
    """Return whether image and caption of each pair are nearer to each other than either is to any pair of the pool.

    Ties count as misses. Pool pairs with the same picture or the same text are skipped. The pool is the same for all
    pairs, so the result does not depend on batches.
    """
    assert embedded.image is not None and embedded.text is not None  # noqa: PT018
    assert pool.image is not None and pool.text is not None  # noqa: PT018
    own = (embedded.image * embedded.text).sum(1)
    ours, theirs = units(embedded.ids), units(pool.ids)
    differ = (ours.images[:, None] != theirs.images) & (ours.captions[:, None] != theirs.captions)
    other = torch.as_tensor(differ, device=own.device)
    best = own.new_full((len(own),), -torch.inf)
    for rows, against in ((embedded.image, pool.text), (embedded.text, pool.image)):
        alike = torch.where(other, rows @ against.T, -torch.inf)
        best = torch.maximum(best, alike.amax(1))
    found: np.ndarray = (own > best).cpu().numpy()
    return found


def _pool(context: RunContext, sites: SitePair) -> PairedActs:
    """Return the scored pairs with the smallest hashed ids."""
    scored = scored_on(context.settings)
    ranks = np.sort(keys.hashed(context.cache.keys[scored(context.cache.keys)], _SEED))
    last = ranks[min(POOL, len(ranks)) - 1] if len(ranks) else 0
    read = context.cache.batches(**sites, keep=lambda k: scored(k) & (keys.hashed(k, _SEED) <= last))
    batches = [unit(acts) for acts in read]
    image, text = ([rows for b in batches if (rows := b.of(m)) is not None] for m in MODALITIES)
    return PairedActs(tuple(i for b in batches for i in b.ids), torch.cat(image), torch.cat(text))


def unit(acts: PairedActs) -> PairedActs:
    """Normalise each row to length 1, in float64."""

    def normalised(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else torch.nn.functional.normalize(rows.double(), dim=-1)

    return replace(acts, image=normalised(acts.image), text=normalised(acts.text))
