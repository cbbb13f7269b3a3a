"""Collect the evidence for names (top samples, a background, their embeddings) and run the chosen namer."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cliplens import keys, registry
from cliplens.contracts import Namer, Scorer
from cliplens.hooked import HookedCLIP
from cliplens.naming import caption_vocabulary, in_context, name_latents
from cliplens.pairs import Pairs
from cliplens.records import Evidence, Exemplars, Findings, Pair, PairedActs
from cliplens.run.context import RunContext
from cliplens.run.dictionary import SitePair, by_modality, scored_on
from cliplens.sites import MODALITIES, Modality, Site
from cliplens.store import Cache, Embeddings
from cliplens.store.memory import trim_memory
from cliplens.stream import stream

EMBEDDING = "hook_embedding"
BACKGROUND = 2000
ROWS = 1024
CONTEXT_BATCHES = 100
"""Maximum number of batches of captions for embeddings of words in context; a few hundred thousand are enough."""


def name_found(
    context: RunContext, exemplars: Mapping[Modality, Exemplars | None], alive: Bool[np.ndarray, " d_sae"]
) -> Findings:
    """Return the columns, tables and figures of the chosen namer, with its names tested by every installed scorer."""
    namer = registry.find("namers", context.settings.namer).make(Namer)
    scorers = [scorer for _, scorer in registry.made("scorers", Scorer)]
    clip = context.clip
    embed = None if isinstance(clip, Embeddings) or clip.text is None else partial(embed_texts, clip)
    evidence = evidence_for(context, exemplars, alive)
    trim_memory()  # of the batches that were read
    judges = () if context.judge is None else (context.judge,)
    return name_latents(evidence, namer, scorers=scorers, embed=embed, judges=judges)


def _remembered_vocabulary(context: RunContext) -> tuple[tuple[str, ...], Float[Tensor, "word d_embed"] | None]:
    """Return the vocabulary and its embeddings, once for all runs that share a memory."""

    def made() -> tuple[tuple[str, ...], Float[Tensor, "word d_embed"] | None]:
        words = _vocabulary(context)
        return words, _vocabulary_acts(context, words)

    same = ("vocabulary", context.settings.vocabulary, context.settings.sides)
    return made() if context.memory is None else context.memory.once(same, made)


def evidence_for(
    context: RunContext, exemplars: Mapping[Modality, Exemplars | None], alive: Bool[np.ndarray, " d_sae"]
) -> Evidence:
    """Return the evidence for namers and scorers."""
    images, texts = exemplars.get("image"), exemplars.get("text")
    vocabulary, vocabulary_acts = _remembered_vocabulary(context)
    background = _background(context)
    embeddings = by_modality([Site(side, EMBEDDING) for side in context.settings.sides])
    return Evidence(
        d_sae=context.dictionary.d_sae,
        alive=alive,
        images=images,
        texts=texts,
        decoder=context.dictionary.decoder,
        vocabulary=vocabulary,
        vocabulary_acts=vocabulary_acts,
        fixed_vocabulary=context.settings.vocabulary is not None,
        image_acts=_exemplar_acts(context.cache, images, embeddings),
        text_acts=_exemplar_acts(context.cache, texts, embeddings),
        background=background,
        background_acts=_acts_of(context.cache, background, embeddings),
        background_codes=context.dictionary.encode(
            _acts_of(context.cache, background, by_modality(context.settings.sites))
        ),
    )


def _vocabulary(context: RunContext) -> tuple[str, ...]:
    if context.settings.vocabulary is None:
        return (
            caption_vocabulary([caption for caption in context.pairs.captions if caption])
            if context.pairs.has_captions
            else ()
        )
    lines = Path(context.settings.vocabulary).read_text().splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _vocabulary_acts(context: RunContext, vocabulary: Sequence[str]) -> Float[Tensor, "word d_embed"] | None:
    """Return embeddings of words in the context of captions that contain them; of the bare words without captions."""
    if not vocabulary:
        return None
    if isinstance(context.clip, Embeddings):
        if context.clip.text_rows is None:
            return None
        alone = torch.zeros(len(vocabulary), context.clip.text_rows.shape[1])  # no model to embed bare words
    elif context.clip.text is None:
        return None
    else:
        alone = embed_texts(context.clip, vocabulary)
    if "text" not in context.settings.sides:
        return alone
    if not context.pairs.has_captions:
        return alone
    read = context.cache.batches(image=None, text=Site("text", EMBEDDING), batch_size=ROWS)
    places = np.split(context.cache.indices, range(ROWS, len(context.cache), ROWS))
    batches = (
        ([context.pairs.caption_at(place) or "" for place in here], acts.text)
        for here, acts in zip(places, read, strict=False)
        if acts.text is not None
    )
    return in_context(vocabulary, islice(batches, CONTEXT_BATCHES), alone)


def _background(context: RunContext) -> tuple[Pair, ...]:
    """Return a sample of the scored pairs, drawn by id."""
    ids = np.array(context.cache.ids, dtype=object)
    scored = ids[scored_on(context.settings)(context.cache.keys)]
    order = np.argsort(keys.hashed(keys.pair_keys(scored), seed=BACKGROUND))[:BACKGROUND]
    chosen = sorted(scored[order])
    place = context.pairs.indices(chosen)
    return tuple(context.pairs[place[pair_id]] for pair_id in chosen)


def embed_texts(clip: HookedCLIP, texts: Sequence[str]) -> Float[Tensor, "text d_embed"]:
    """Return the model's final embedding of each text."""
    pairs = Pairs(texts, None, texts, name="texts")
    acts = [acts.text for acts in stream(clip, pairs, [Site("text", EMBEDDING)])]
    return torch.cat([rows for rows in acts if rows is not None])


def _exemplar_acts(cache: Cache, exemplars: Exemplars | None, sites: SitePair) -> Float[Tensor, "pair d_embed"] | None:
    """Return the final embeddings of the exemplars, in the dtype on disk, since there may be one for every pair."""
    if exemplars is None:
        return None
    dtype = torch.float16 if cache.plan.dtype == "float16" else torch.float32
    images = exemplars.modality == "image"
    own: SitePair = {"image": sites["image"] if images else None, "text": None if images else sites["text"]}
    return _acts_of(cache, exemplars.pairs, own, dtype).of(exemplars.modality)


def _acts_of(cache: Cache, pairs: Sequence[Pair], sites: SitePair, dtype: torch.dtype = torch.float32) -> PairedActs:
    """Return the activations of the pairs at the sites, in the order of the pairs."""
    wanted = {pair.id: place for place, pair in enumerate(pairs)}
    here = cache.keys[[row for row, pair_id in enumerate(cache.ids) if pair_id in wanted]]
    found: dict[Modality, Tensor] = {}
    for acts in cache.batches(**sites, keep=lambda found: np.isin(found, here), batch_size=ROWS):
        rows = [row for row, pair_id in enumerate(acts.ids) if pair_id in wanted]
        places = [wanted[acts.ids[row]] for row in rows]
        for modality in MODALITIES:
            values = acts.of(modality)
            if values is None:
                continue
            if modality not in found:
                found[modality] = torch.zeros(len(pairs), values.shape[1], dtype=dtype)
            found[modality][places] = values[rows].to(dtype)
    return PairedActs(tuple(wanted), found.get("image"), found.get("text"))
