"""Compute the match of names and samples, one view per judge.

- `clip`: the text tower of the model studied. Circular: a mistake of the model in a name is repeated in the test.
- `words`: the number of words of the name in the caption. Independent of every model; sees captions only.
- any `cliplens.judges` plugin that embeds images and captions, for example another model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor

from cliplens.contracts import Judge
from cliplens.naming import words
from cliplens.pairs import open_image
from cliplens.records import Evidence, Pair
from cliplens.sites import MODALITIES, Modality
from cliplens_plugins.autointerp.space import Rows, UnitRows, array, exemplars_of, unit, unit_array, word_rows

Embed = Callable[[Sequence[str]], Float[Tensor, "text d_embed"]]
_Acts = dict[Modality, tuple[Float[Tensor, "sample d"] | None, Float[Tensor, "background d"] | None]]


class View(ABC):
    """Matches of names with samples by one judge. Higher is better; only matches of the same name are comparable."""

    judge: str
    """Name of the judge."""
    circular: bool
    """Whether the judge is the model studied."""
    name_indices: Mapping[str, int]
    """Index of each name; the methods take these indices."""
    modalities: Sequence[Modality]
    """The modalities whose samples the judge sees."""

    @abstractmethod
    def match_exemplars(
        self, modality: Modality, names: Int[np.ndarray, "list latent"], at: Int[np.ndarray, "latent sample"]
    ) -> Float[np.ndarray, "list latent sample"]:
        """Return the match of each latent's name, for several lists of names, with the exemplars `at` of the latent."""

    @abstractmethod
    def match_background(
        self, modality: Modality, names: Int[np.ndarray, " latent"]
    ) -> Float[np.ndarray, "latent background"]:
        """Return the match of each latent's name with every background sample."""

    @property
    @abstractmethod
    def numbers_each(self) -> int:
        """Number of float64 values that the match of one sample takes in memory."""


@dataclass(frozen=True)
class Samples:
    """A judge's embeddings of one modality: of the exemplars' pairs and of the background, in their order."""

    exemplars: UnitRows
    background: Float[np.ndarray, "background d"]


@dataclass(frozen=True)
class EmbeddingView(View):
    """A judge that embeds names and samples: the match is the dot product of their embeddings."""

    judge: str
    circular: bool
    names: Mapping[str, Float[np.ndarray, " d"]]
    samples: Mapping[Modality, Samples]

    def __post_init__(self) -> None:
        rows = np.stack(list(self.names.values())) if self.names else np.zeros((0, 1))
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "name_indices", {name: n for n, name in enumerate(self.names)})
        object.__setattr__(self, "modalities", tuple(self.samples))

    def match_exemplars(
        self, modality: Modality, names: Int[np.ndarray, "list latent"], at: Int[np.ndarray, "latent sample"]
    ) -> Float[np.ndarray, "list latent sample"]:
        """Return the dot products of name embeddings and exemplar embeddings."""
        matched = self.samples[modality].exemplars[at] @ self._rows[names].transpose(1, 2, 0)  # type: ignore[attr-defined]
        return matched.transpose(2, 0, 1)

    def match_background(
        self, modality: Modality, names: Int[np.ndarray, " latent"]
    ) -> Float[np.ndarray, "latent background"]:
        """Return the dot products of name embeddings and background embeddings."""
        return self._rows[names] @ self.samples[modality].background.T  # type: ignore[attr-defined]

    @property
    def numbers_each(self) -> int:
        """Width of the embedding."""
        return self._rows.shape[1]  # type: ignore[attr-defined]


class WordsView(View):
    """The judge `words`: the match is the number of words of the name in the caption. It sees no images."""

    judge = "words"
    circular = False
    numbers_each = 16

    def __init__(self, evidence: Evidence, names: Sequence[str]) -> None:
        self.name_indices = {name: n for n, name in enumerate(names)}
        lexicon = {word: n for n, word in enumerate(sorted({w for name in names for w in words(name)}))}
        self.modalities: tuple[Modality, ...] = ("text",) if evidence.texts is not None and lexicon else ()
        if evidence.texts is not None:
            self._names = _words_held(names, lexicon)
            self._exemplars = _words_held([p.caption or "" for p in evidence.texts.pairs], lexicon)
            self._background = _words_held([p.caption or "" for p in evidence.background], lexicon)

    def match_exemplars(
        self, modality: Modality, names: Int[np.ndarray, "list latent"], at: Int[np.ndarray, "latent sample"]
    ) -> Float[np.ndarray, "list latent sample"]:
        """Return the number of words of the name in each exemplar's caption."""
        found = np.empty((*names.shape, at.shape[1]))
        held = self._exemplars[at.ravel()]
        for n, row in enumerate(names):
            asked = self._names[np.repeat(row, at.shape[1])]
            found[n] = np.asarray(held.multiply(asked).sum(axis=1)).reshape(at.shape)
        return found

    def match_background(
        self, modality: Modality, names: Int[np.ndarray, " latent"]
    ) -> Float[np.ndarray, "latent background"]:
        """Return the number of words of the name in each background caption."""
        return (self._names[names] @ self._background.T).toarray()


def own_view(evidence: Evidence, names: Sequence[str], embed: Embed) -> View:
    """Return the view of the model studied. Names made of vocabulary words reuse the evidence's word embeddings."""
    acts: _Acts = {}
    apart = evidence.background_acts
    for modality in MODALITIES:
        own = evidence.image_acts if modality == "image" else evidence.text_acts
        other = None if apart is None else apart.of(modality)
        acts[modality] = (own, other)
    rows = {**_named(names, array(embed(names))), **_known(evidence, names)}
    return EmbeddingView("clip", True, rows, _centred(acts))


def judge_view(judge: Judge, evidence: Evidence, names: Sequence[str]) -> View:
    """Return the view of an independent judge, which embeds the samples itself.

    The view of a judge that cannot embed words has no modalities, so it tests no names.
    """
    said = judge.embed(None, list(names), list(names)).text if judge.embeds_words else None
    if said is None:
        return EmbeddingView(judge.name, False, {}, {})
    acts: _Acts = {}
    for modality in MODALITIES:
        exemplars = exemplars_of(evidence, modality)
        own = None if exemplars is None else _embedded(judge, exemplars.pairs, modality)
        acts[modality] = (own, _embedded(judge, evidence.background, modality))
    return EmbeddingView(judge.name, False, _named(names, array(said)), _centred(acts))


def _known(evidence: Evidence, names: Sequence[str]) -> dict[str, Float[np.ndarray, " d"]]:
    """Return the mean embedding of each name's words, for names made only of vocabulary words."""
    rows = word_rows(evidence)
    if rows is None:
        return {}
    index_of = {word: n for n, word in enumerate(evidence.vocabulary)}
    parts = {name: [name] if name in index_of else words(name) for name in names}
    known = {name: said for name, said in parts.items() if said and all(word in index_of for word in said)}
    return {name: rows[[index_of[word] for word in said]].mean(axis=0) for name, said in known.items()}


def _named(names: Sequence[str], acts: Rows) -> dict[str, Float[np.ndarray, " d"]]:
    """Centre the names on their mean, because the part shared by all texts does not distinguish names."""
    rows = unit(acts)
    rows = unit(rows - rows.mean(axis=0)) if len(rows) > 1 else rows
    return dict(zip(names, rows, strict=True))


def _centred(acts: _Acts) -> dict[Modality, Samples]:
    """Centre the samples on the mean of the background, which removes the modality gap."""
    found: dict[Modality, Samples] = {}
    for modality, (own, apart) in acts.items():
        if own is not None and apart is not None and len(own) and len(apart):
            others = unit_array(apart)
            mean = others.mean(axis=0)
            found[modality] = Samples(UnitRows(own, mean), others - mean)
    return found


def _words_held(texts: Sequence[str], lexicon: Mapping[str, int]) -> csr_matrix:
    """Return a sparse [text, word] matrix: 1 where a text contains a word."""
    held = [sorted(lexicon[word] for word in set(words(text)) & lexicon.keys()) for text in texts]
    starts = np.cumsum([0, *map(len, held)])
    columns = np.array([word for row in held for word in row], dtype=np.int64)
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(texts), max(len(lexicon), 1)))


def _embedded(judge: Judge, pairs: Sequence[Pair], modality: Modality, batch: int = 256) -> Tensor | None:
    rows: list[Tensor] = []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        ids = [p.id for p in part]
        images = [open_image(p) for p in part] if modality == "image" else None
        captions = [p.caption or "" for p in part] if modality == "text" else None
        acts = judge.embed(images, captions, ids).of(modality)
        if acts is None:
            return None
        rows.append(acts)
    return torch.cat(rows) if rows else None
