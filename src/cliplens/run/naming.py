"""What namers may look at: top samples, a background to tell them from, and everything in the shared embedding."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from cliplens import keys, registry
from cliplens.contracts import Namer
from cliplens.hooked import HookedCLIP
from cliplens.naming import name_latents, words_of
from cliplens.pairs import Pairs
from cliplens.records import Evidence, Exemplars, Findings, Pair, PairedActs
from cliplens.run.dictionary import scored_on
from cliplens.run.parts import Parts
from cliplens.sites import SIDE_OF, Modality, Site
from cliplens.store import Cache
from cliplens.stream import stream
from cliplens.tally import Tally

EMBEDDING = "hook_embedding"
BACKGROUND = 2000
ROWS = 1024


def name_found(parts: Parts, exemplars: Mapping[Modality, Exemplars | None], found: Tally) -> Findings:
    """Columns and figures of the namer the settings ask for."""
    images, texts = exemplars.get("image"), exemplars.get("text")
    vocabulary = _vocabulary(parts)
    background = _background(parts)
    evidence = Evidence(
        d_sae=parts.dictionary.d_sae,
        alive=found.table["alive"].astype(bool),
        images=images,
        texts=texts,
        decoder=parts.dictionary.decoder,
        vocabulary=vocabulary,
        vocabulary_acts=_embed_words(parts.clip, vocabulary),
        image_acts=_embeddings_of(parts.cache, images.pairs, "image").image if images else None,
        text_acts=_embeddings_of(parts.cache, texts.pairs, "text").text if texts else None,
        background=background,
        background_acts=_embeddings_of(parts.cache, background, *(site.modality for site in parts.settings.sites)),
    )
    return name_latents(evidence, registry.find("namers", parts.settings.namer).make(Namer))


def _vocabulary(parts: Parts) -> tuple[str, ...]:
    if parts.settings.vocabulary is None:
        return words_of([caption for caption in parts.pairs.captions if caption]) if parts.pairs.has_captions else ()
    lines = Path(parts.settings.vocabulary).read_text().splitlines()
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _background(parts: Parts) -> tuple[Pair, ...]:
    """A sample of the scored pairs, chosen by id."""
    ids = np.array(parts.cache.ids, dtype=object)
    scored = ids[scored_on(parts.settings)(keys.pair_keys(ids))]
    order = np.argsort(keys.hashed(keys.pair_keys(scored), seed=BACKGROUND))[:BACKGROUND]
    place = {pair_id: n for n, pair_id in enumerate(parts.pairs.ids)}
    return tuple(parts.pairs[place[pair_id]] for pair_id in sorted(scored[order]))


def _embed_words(clip: HookedCLIP, words: Sequence[str]) -> torch.Tensor | None:
    if not words or clip.text is None:
        return None
    pairs = Pairs(words, None, words, name="vocabulary")
    acts = [acts.text for acts in stream(clip, pairs, [Site("text", EMBEDDING)])]
    return torch.cat([rows for rows in acts if rows is not None])


def _embeddings_of(cache: Cache, pairs: Sequence[Pair], *modalities: Modality) -> PairedActs:
    """The model's final embeddings of the pairs, in their order."""
    wanted = {pair.id: place for place, pair in enumerate(pairs)}
    sites = {modality: Site(SIDE_OF[modality], EMBEDDING) for modality in modalities}
    found: dict[Modality, torch.Tensor] = {}
    for acts in cache.batches(image=sites.get("image"), text=sites.get("text"), batch_size=ROWS):
        rows = [row for row, pair_id in enumerate(acts.ids) if pair_id in wanted]
        places = [wanted[acts.ids[row]] for row in rows]
        for modality in modalities:
            values = acts.of(modality)
            if values is not None:
                found.setdefault(modality, values.new_zeros(len(pairs), values.shape[1]))[places] = values[rows]
    return PairedActs(tuple(wanted), found.get("image"), found.get("text"))
