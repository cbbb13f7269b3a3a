"""Use embeddings from files in place of a model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.lib.stride_tricks import as_strided

from cliplens.errors import BadPairError, InputError, MismatchError
from cliplens.pairs import Decoded, Decoder, Pairs
from cliplens.pairs.images import caption_of
from cliplens.records import ModelIdentity
from cliplens.sites import MODALITIES, SIDES, Modality, Side, Site
from cliplens.stream import ReadBatch, SiteActs, SiteReader

HOOK = "hook_embedding"
"""The hook of the embeddings: the final embedding of each tower."""
_ROWS = 8192
"""Rows that are hashed at a time."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of images and captions, used in place of a model in a run. Row i of both belongs to the same pair.

    They stay float16 where the file holds float16, and are read as float32.
    It has no towers: `vision` and `text` are None.
    """

    image_rows: Float[np.ndarray, "image d_image"] | None
    text_rows: Float[np.ndarray, "text d_text"] | None
    ids: tuple[str, ...] | None = None
    name: str = "embeddings"
    notes: tuple[str, ...] = ()
    """A note for the user on how the arrays were chosen."""
    vision: None = None
    text: None = None
    preprocess: None = None
    tokenizer: None = None

    def __post_init__(self) -> None:
        given = {m: rows for m in MODALITIES if (rows := self.of(m)) is not None}
        if not given:
            raise InputError(
                expected="embeddings of images or of captions", found="none", fix="pass --embeddings image.npy text.npy"
            )
        if len({len(rows) for rows in given.values()}) > 1:
            raise MismatchError(
                expected="one image embedding per text embedding",
                found=", ".join(f"{len(rows)} of {m}" for m, rows in given.items()),
                fix="save both in the same order, a row per pair",
            )
        if len({rows.shape[1] for rows in given.values()}) > 1:
            raise MismatchError(
                expected="embeddings of images and captions with the same width",
                found=", ".join(f"{m}: {rows.shape[1]}" for m, rows in given.items()),
                fix="save the embeddings after the projections into the joint space, or read one modality (--tower)",
            )
        if self.ids is not None and len(self.ids) != len(self):
            raise MismatchError(
                expected=f"one id per row ({len(self)})", found=str(len(self.ids)), fix="save as many ids as rows"
            )

    def __len__(self) -> int:
        return next(len(rows) for m in MODALITIES if (rows := self.of(m)) is not None)

    def of(self, modality: Modality) -> Float[np.ndarray, "pair _"] | None:
        """Return the embeddings of one modality."""
        return self.image_rows if modality == "image" else self.text_rows

    def release(self) -> None:
        """Free the rows once they are harvested. Length, widths, dtypes and identity stay; a row reads as nan."""
        _ = self.identity
        for name in ("image_rows", "text_rows"):
            rows = getattr(self, name)
            if rows is not None:
                nan = np.full(1, np.nan, dtype=rows.dtype)
                object.__setattr__(self, name, as_strided(nan, rows.shape, (0, 0)))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the embeddings."""
        return torch.float32

    @property
    def towers(self) -> dict[Side, Any]:
        """No towers."""
        return {}

    @cached_property
    def identity(self) -> ModelIdentity:
        """An identity with the hash of the arrays, as float32, in place of that of weights."""
        digest = hashlib.sha256()
        for modality in MODALITIES:
            rows = self.of(modality)
            if rows is None:
                digest.update(b"none")
                continue
            for start in range(0, len(rows), _ROWS):
                digest.update(np.ascontiguousarray(rows[start : start + _ROWS], dtype=np.float32).tobytes())
        return ModelIdentity(self.name, None, digest.hexdigest(), "none", "", "")


class EmbeddingsReader(SiteReader):
    """Read rows of `Embeddings`, with the interface of `SiteReader`.

    Args:
        embeddings: the arrays.
        sites: `vision.hook_embedding`, `text.hook_embedding` or both.

    Raises:
        InputError: another site is requested.
    """

    def __init__(self, embeddings: Embeddings, sites: Sequence[Site]) -> None:
        self.clip: Any = embeddings
        self.sites, self.token = tuple(dict.fromkeys(sites)), "auto"
        self.autocast, self.compiled = None, None
        wrong = [str(s) for s in self.sites if s.hook != HOOK or embeddings.of(s.modality) is None]
        if wrong:
            raise InputError(
                expected=f"sites of the embeddings: {', '.join(f'{side}.{HOOK}' for side in SIDES)}",
                found=", ".join(wrong),
                fix=f"leave --hook at {HOOK}, or run on a model with --model and --pairs",
            )
        self._rows = {site: torch.from_numpy(_needed(embeddings, site.modality)) for site in self.sites}
        self.widths = {site: rows.shape[1] for site, rows in self._rows.items()}

    def decoder(self, pairs: Pairs) -> "EmbeddingsDecoder":
        """Return a decoder that sets aside pairs with nan or inf in their embeddings, or without a usable caption."""
        if len(pairs) != len(self.clip):
            raise MismatchError(
                expected=f"one pair per row of the embeddings ({len(self.clip)})",
                found=f"{len(pairs)} pairs",
                fix="pass one caption, image or pair per row, in the order of the rows",
            )
        said = pairs.has_captions and any(site.side == "text" for site in self.sites)
        return EmbeddingsDecoder(pairs, [rows.numpy() for rows in self._rows.values()], captions=said)

    def read(self, decoded: Decoded) -> ReadBatch:
        """Return the rows of a batch."""
        index = torch.from_numpy(decoded.indices)
        one = torch.ones(len(index), dtype=torch.int64)
        sites = {site: SiteActs(rows[index][:, None].float(), one, "single") for site, rows in self._rows.items()}
        return ReadBatch(decoded, sites, None, 0)


class EmbeddingsDecoder(Decoder):
    """Give the pairs of a batch without opening an image; `captions` says whether each must have a caption."""

    def __init__(self, pairs: Pairs, rows: Sequence[Float[np.ndarray, "pair _"]], *, captions: bool) -> None:
        super().__init__(pairs, None, captions)
        finite = np.logical_and.reduce([np.isfinite(part).all(1) for part in rows])
        object.__setattr__(self, "finite", finite)

    def __getitem__(self, indices: Int64[np.ndarray, " pair"]) -> Decoded:
        problems = {int(i): reason for i in indices if (reason := self._problem(int(i))) is not None}
        kept = np.array([i for i in indices.tolist() if i not in problems], dtype=np.int64)
        bad = tuple((self.pairs.unidentified(i), reason) for i, reason in problems.items())
        return Decoded(indices, kept, tuple(self.pairs.id_at(i) for i in kept.tolist()), None, None, bad)

    def _problem(self, index: int) -> str | None:
        if not self.finite[index]:  # type: ignore[attr-defined]
            return "nan or inf in its embedding"
        if not self.captions:
            return None
        try:
            caption_of(self.pairs.without_image(index))
        except BadPairError as error:
            return error.reason
        return None


def _needed(embeddings: Embeddings, modality: Modality) -> np.ndarray:
    rows = embeddings.of(modality)
    assert rows is not None  # __init__ checked that every site has rows.
    return rows
