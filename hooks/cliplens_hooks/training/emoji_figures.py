"""Evaluate the embedded model of real drawings: retrieval, swaps of gender and tone, professions, probes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from cliplens.pairs.emoji import (
    ARTISTS,
    Drawing,
    data_folder,
    drawings,
    is_unseen_cell,
    is_unseen_concept,
    named,
)
from cliplens_hooks.training.emoji_data import normalised, pictures_of
from cliplens_hooks.training.world_figures import probe_accuracy

TONES = ("default", "light", "medium-light", "medium", "medium-dark", "dark")
GENDERS = ("woman", "man")
_BATCH = 256
_Rows = Float[Tensor, "row d_embed"]


@dataclass(frozen=True)
class Gallery:
    """Every drawing of some artists, with pixels opened once for all models."""

    drawings: tuple[Drawing, ...]
    pixels: Tensor

    @classmethod
    def open(cls, artists: Sequence[str] = tuple(ARTISTS)) -> "Gallery":
        """Open the drawings below CLIPLENS_DATA."""
        found = [drawing for a in artists for drawing in drawings(data_folder() / ARTISTS[a], a)]
        return cls(tuple(found), pictures_of(found))

    def where(self, wanted: Callable[[Drawing], bool]) -> Int64[np.ndarray, " drawing"]:
        """Return the places of the drawings wanted."""
        return np.array([n for n, drawing in enumerate(self.drawings) if wanted(drawing)], dtype=np.int64)


class Judged:
    """One model with the embeddings of a gallery."""

    def __init__(self, model: CLIP, tokenizer: SimpleTokenizer, gallery: Gallery) -> None:
        self.gallery, self._model, self._tokenizer = gallery, model, tokenizer
        self.image = self._images(gallery.pixels)
        self._texts: dict[str, _Rows] = {}

    @torch.no_grad()
    def _images(self, pixels: Tensor) -> _Rows:
        parts = [self._model.encode_image(normalised(part), normalize=True) for part in pixels.split(_BATCH)]
        return torch.cat(parts)

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> _Rows:
        """Return unit-norm embeddings of captions; each is computed once."""
        new = list(dict.fromkeys(caption for caption in captions if caption not in self._texts))
        for start in range(0, len(new), _BATCH):
            part = new[start : start + _BATCH]
            rows = self._model.encode_text(self._tokenizer(part), normalize=True)
            self._texts.update(zip(part, rows, strict=True))
        return torch.stack([self._texts[caption] for caption in captions])

    @cached_property
    def _by_cell(self) -> dict[tuple[str, str, str], Drawing]:
        return {(d.profession, d.gender, d.skin_tone): d for d in self.gallery.drawings if d.profession != "none"}

    def plain(self, artist: str, *, unseen: bool | None) -> Int64[np.ndarray, " drawing"]:
        """Return one drawing per concept by an artist, with no chosen tone or gender: those kept from training or not.

        Args:
            artist: name of the artist.
            unseen: only concepts kept from training, only the others, or (None) all.
        """
        return self.gallery.where(
            lambda d: d.artist == artist and d.plain and (unseen is None or is_unseen_concept(d) == unseen)
        )

    def retrieval(
        self, places: Int64[np.ndarray, " drawing"], language: str, k: int, *, keywords: bool = False
    ) -> float:
        """Return recall at k among the drawings and their names, the mean of both directions.

        Args:
            places: the drawings.
            language: of the names.
            k: number of the nearest ones among which the right one must be; ties count against it.
            keywords: whether the translators' keywords follow each name.
        """
        alike = self.image[places] @ self.text(self.names(places, language, keywords=keywords)).T
        own = alike.diagonal()
        better = ((alike >= own[:, None]).sum(1) - 1, (alike >= own[None, :]).sum(0) - 1)
        return float(np.mean([(rank < k).double().mean().item() for rank in better]))

    def has(self, place: int, language: str) -> bool:
        """Return whether a drawing has a name in a language."""
        return language == "en" or self.gallery.drawings[place].codepoints in named(language)

    def names(self, places: Int64[np.ndarray, " drawing"], language: str, *, keywords: bool = False) -> list[str]:
        """Return the names of drawings in a language, with the keywords behind them where asked."""
        found = [caption(self.gallery.drawings[n], language) for n in places]
        if not keywords:
            return found
        of = named(language)
        codes = [self.gallery.drawings[n].codepoints for n in places]
        return [", ".join((name, *of[code][1])) for name, code in zip(found, codes, strict=True)]

    def cells(self, artist: str, *, unseen: bool, gendered: bool = False) -> Int64[np.ndarray, " drawing"]:
        """Return the drawings of professions by an artist in cells kept from training, or in the others."""
        return self.gallery.where(
            lambda d: (
                d.artist == artist
                and d.profession != "none"
                and is_unseen_cell(d) == unseen
                and (not gendered or d.gender in GENDERS)
            )
        )

    def cell(self, like: Drawing) -> Drawing:
        """Return a drawing of the profession, gender and skin tone of another; any artist's, for its names."""
        return self._by_cell[like.profession, like.gender, like.skin_tone]

    def swap(
        self, places: Int64[np.ndarray, " drawing"], factor: str, values: Sequence[str], language: str = "en"
    ) -> Bool[np.ndarray, " drawing"]:
        """Return where the right caption scores above its copies with another value of one factor.

        Args:
            places: drawings of professions.
            factor: "gender", "skin_tone" or "profession".
            values: the values among which the model chooses.
            language: of the captions.
        """
        right = np.zeros(len(places), dtype=bool)
        for n, place in enumerate(places):
            drawing = self.gallery.drawings[place]
            options = [self.cell(replace(drawing, **{factor: value})) for value in values]
            scores = self.text([caption(option, language) for option in options]) @ self.image[place]
            right[n] = values[int(scores.argmax())] == getattr(drawing, factor)
        return right

    def artist_probe(self) -> float:
        """Return the accuracy of a linear probe for the artist on the images of concepts it was not trained on."""
        places = self.gallery.where(lambda d: d.plain)
        artists = sorted({d.artist for d in self.gallery.drawings})
        label = np.array([artists.index(self.gallery.drawings[n].artist) for n in places])
        return self._probed(self.image[places], label, [self.gallery.drawings[n].concept for n in places])

    def language_probe(self, languages: Sequence[str]) -> float:
        """Return the accuracy of a linear probe for the language, on names of every third concept."""
        places = self.plain("noto", unseen=None)[::3]
        texts = [name for language in languages for name in self.names(places, language)]
        label = np.repeat(np.arange(len(languages)), len(places))
        concepts = [self.gallery.drawings[n].concept for n in places] * len(languages)
        return self._probed(self.text(texts), label, concepts)

    @staticmethod
    def _probed(rows: _Rows, label: np.ndarray, concepts: Sequence[str]) -> float:
        known = sorted(set(concepts))
        order = dict(zip(np.random.default_rng(0).permutation(known), range(len(known)), strict=True))
        late = np.array([order[c] >= len(known) * 2 // 3 for c in concepts])
        places = np.argsort(late, kind="stable")
        ordered = torch.from_numpy(places)
        found = probe_accuracy(rows[ordered], {"label": label[places]}, train=int((~late).sum()))
        return found["label"]

    def variance_share(self, rows: _Rows, label: Shaped[np.ndarray, " row"]) -> float:
        """Return the share of the variance of rows that lies between the means of the labels."""
        centred = rows.double() - rows.double().mean(0)
        groups = [centred[torch.from_numpy(label == value)] for value in np.unique(label)]
        between = sum(len(group) * group.mean(0).square().sum() for group in groups)
        return float(between / centred.square().sum())


def caption(drawing: Drawing, language: str) -> str:
    """Return the name of a drawing in a language; English stands in its own table."""
    return drawing.name if language == "en" else named(language)[drawing.codepoints][0]
