"""How a judge sees names and samples: unit rows in a space of its own, and whether it may be called independent.

Three kinds of judge look at names here:

- `clip`: the model studied, by its own text tower. Circular: it may call a name right for the very reason it is wrong.
- `words`: whether the words of the name stand in the caption. Independent of every model; sees captions only.
- any `cliplens.judges` plug-in that embeds both, for example another model: independent as far as it is another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cliplens.contracts import Judge
from cliplens.naming import words
from cliplens.pairs import open_image
from cliplens.records import Evidence, Pair
from cliplens.sites import Modality
from cliplens_plugins.autointerp.space import Rows, array, spoken, unit

Embed = Callable[[Sequence[str]], Float[Tensor, "text d_embed"]]
_Acts = dict[Modality, tuple[Float[np.ndarray, "sample d"] | None, Float[np.ndarray, "background d"] | None]]
_MODALITIES: tuple[Modality, ...] = ("image", "text")


@dataclass(frozen=True)
class Samples:
    """What a judge sees of one modality: the exemplars' pairs and the background, in their order."""

    exemplars: Float[np.ndarray, "sample d"]
    background: Float[np.ndarray, "background d"]


@dataclass(frozen=True)
class View:
    """A judge's embeddings. `match` of a name and a sample is the product of their rows."""

    judge: str
    circular: bool
    names: Mapping[str, Float[np.ndarray, " d"]]
    samples: Mapping[Modality, Samples]

    def match(self, name: str, rows: Rows) -> Float[np.ndarray, " sample"]:
        """How well the name fits each sample."""
        return rows @ self.names[name]


def own_view(evidence: Evidence, names: Sequence[str], embed: Embed) -> View:
    """The model's own opinion. Words of the vocabulary are taken as the evidence has them, other names are embedded."""
    acts: _Acts = {}
    apart = evidence.background_acts
    for modality in _MODALITIES:
        own = evidence.image_acts if modality == "image" else evidence.text_acts
        other = None if apart is None else apart.of(modality)
        acts[modality] = (None if own is None else array(own), None if other is None else array(other))
    return View("clip", True, {**_named(names, array(embed(names))), **_known(evidence, names)}, _centred(acts))


def judge_view(judge: Judge, evidence: Evidence, names: Sequence[str]) -> View:
    """The opinion of an independent judge; pictures are opened and embedded by it."""
    said = judge.embed(None, list(names), list(names)).text
    acts: _Acts = {}
    for modality in _MODALITIES:
        exemplars = evidence.images if modality == "image" else evidence.texts
        own = None if exemplars is None else _embedded(judge, exemplars.pairs, modality)
        acts[modality] = (own, _embedded(judge, evidence.background, modality))
    if said is None:
        return View(judge.name, False, {}, {})
    return View(judge.name, False, _named(names, array(said)), _centred(acts))


def words_view(evidence: Evidence, names: Sequence[str]) -> View:
    """Whether a caption holds the words of a name: 1 for all of them, 0 for none."""
    lexicon = {word: n for n, word in enumerate(sorted({w for name in names for w in words(name)}))}
    said = {name: _bag([name], lexicon)[0] / max(1, len(set(words(name)))) for name in names}
    found: dict[Modality, Samples] = {}
    if evidence.texts is not None and lexicon:
        read = [
            _bag([p.caption or "" for p in pairs], lexicon) for pairs in (evidence.texts.pairs, evidence.background)
        ]
        found["text"] = Samples(*read)
    return View("words", False, said, found)


def _known(evidence: Evidence, names: Sequence[str]) -> dict[str, Float[np.ndarray, " d"]]:
    """The mean direction of a name's words, for names all of whose words are in the vocabulary."""
    rows = spoken(evidence)
    if rows is None:
        return {}
    place = {word: n for n, word in enumerate(evidence.vocabulary)}
    parts = {name: [name] if name in place else words(name) for name in names}
    known = {name: said for name, said in parts.items() if said and all(word in place for word in said)}
    return {name: rows[[place[word] for word in said]].mean(axis=0) for name, said in known.items()}


def _named(names: Sequence[str], acts: Rows) -> dict[str, Float[np.ndarray, " d"]]:
    """Names about their common mean: what is common to all text says nothing about one name."""
    rows = unit(acts)
    rows = unit(rows - rows.mean(axis=0)) if len(rows) > 1 else rows
    return dict(zip(names, rows, strict=True))


def _centred(acts: _Acts) -> dict[Modality, Samples]:
    """Samples about the mean of the background, so that the modality gap decides nothing."""
    found: dict[Modality, Samples] = {}
    for modality, (own, apart) in acts.items():
        if own is not None and apart is not None and len(own) and len(apart):
            middle = unit(apart).mean(axis=0)
            found[modality] = Samples(unit(own) - middle, unit(apart) - middle)
    return found


def _bag(captions: Sequence[str], lexicon: Mapping[str, int]) -> Rows:
    rows = np.zeros((len(captions), len(lexicon)))
    for row, caption in enumerate(captions):
        for word in set(words(caption)) & lexicon.keys():
            rows[row, lexicon[word]] = 1
    return rows


def _embedded(judge: Judge, pairs: Sequence[Pair], modality: Modality, batch: int = 256) -> Rows | None:
    rows: list[Tensor] = []
    for at in range(0, len(pairs), batch):
        part = pairs[at : at + batch]
        ids = [p.id for p in part]
        images = [open_image(p) for p in part] if modality == "image" else None
        captions = [p.caption or "" for p in part] if modality == "text" else None
        acts = judge.embed(images, captions, ids).of(modality)
        if acts is None:
            return None
        rows.append(acts)
    return array(torch.cat(rows)) if rows else None
