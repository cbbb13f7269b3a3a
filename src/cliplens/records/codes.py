"""Activations and latent codes of image-caption pairs, row by row in step, and the batch that metrics see.

A *row* is one position of one pair. *Codes* are the latent activations of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt64
from torch import Tensor

from cliplens.errors import InputError
from cliplens.keys import pair_keys
from cliplens.records.identity import GroundTruth
from cliplens.records.units import Units
from cliplens.sites import Modality


@dataclass(frozen=True)
class PairedActs:
    """Activations of both towers, row by row in step: row i of `image` and row i of `text` belong to `ids[i]`."""

    ids: tuple[str, ...]
    image: Float[Tensor, "row d_image"] | None
    text: Float[Tensor, "row d_text"] | None

    def __post_init__(self) -> None:
        for name in ("image", "text"):
            acts = getattr(self, name)
            if acts is not None and len(acts) != len(self.ids):
                raise InputError(
                    expected=f"one row of {name} activations per id ({len(self.ids)})",
                    found=f"{len(acts)} rows",
                    fix="pass row i of images and captions for id i",
                )

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, modality: Modality) -> Float[Tensor, "row d_in"] | None:
        """Return the activations of one modality."""
        return self.image if modality == "image" else self.text

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " row"]:
        """The 64-bit key of each row's pair (see `cliplens.keys`)."""
        return pair_keys(self.ids)


@dataclass(frozen=True)
class SparseCodes:
    """The firing entries of a [row, d_sae] code matrix, sorted by row, then latent; zeros are never listed."""

    rows: Int64[Tensor, " firing"]
    latents: Int64[Tensor, " firing"]
    values: Float[Tensor, " firing"]
    n_rows: int
    d_sae: int

    @classmethod
    def from_dense(cls, codes: Float[Tensor, "row d_sae"]) -> "SparseCodes":
        """Return the non-zero entries of a dense code matrix."""
        rows, latents = codes.nonzero(as_tuple=True)
        return cls(rows, latents, codes[rows, latents], codes.shape[0], codes.shape[1])

    @classmethod
    def from_sparse(cls, codes: Float[Tensor, "row d_sae"]) -> "SparseCodes":
        """Return the non-zero entries of a sparse code matrix (COO), whose entries may be in any order."""
        codes = codes.coalesce()
        fires = codes.values() != 0
        (rows, latents), values = codes.indices()[:, fires], codes.values()[fires]
        return cls(rows, latents, values, codes.shape[0], codes.shape[1])

    @classmethod
    def joined(cls, parts: "Sequence[SparseCodes]", d_sae: int) -> "SparseCodes":
        """Return the codes of several runs of rows, one after the other."""
        if not parts:
            return cls.from_dense(torch.zeros(0, d_sae))
        if len(parts) == 1:
            return parts[0]
        n_rows = np.cumsum([0, *(p.n_rows for p in parts)])
        rows = torch.cat([p.rows + int(start) for p, start in zip(parts, n_rows[:-1], strict=True)])
        latents, values = torch.cat([p.latents for p in parts]), torch.cat([p.values for p in parts])
        return cls(rows, latents, values, int(n_rows[-1]), d_sae)

    def ordered(self, order: Int64[np.ndarray, " row"]) -> "SparseCodes":
        """Return the codes with their rows in another order, which names each row once."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows = torch.as_tensor(place, device=self.rows.device)[self.rows]
        rows, by_row = rows.sort(stable=True)
        return SparseCodes(rows, self.latents[by_row], self.values[by_row], self.n_rows, self.d_sae)

    def of_latents(self, latents: Int64[np.ndarray, " some"]) -> "SparseCodes":
        """Return the codes of some latents, in increasing order, renumbered from 0."""
        number = torch.full((self.d_sae,), -1, device=self.latents.device)
        number[torch.as_tensor(latents, device=number.device)] = torch.arange(len(latents), device=number.device)
        mine = number[self.latents] >= 0
        renumbered = number[self.latents[mine]]
        return SparseCodes(self.rows[mine], renumbered, self.values[mine], self.n_rows, len(latents))

    def take(self, kept: Bool[np.ndarray, " row"]) -> "SparseCodes":
        """Return the codes of some rows, renumbered from 0."""
        chosen = torch.as_tensor(kept, device=self.rows.device)
        number = torch.cumsum(chosen, 0) - 1
        mine = chosen[self.rows]
        rows, latents, values = number[self.rows[mine]], self.latents[mine], self.values[mine]
        return SparseCodes(rows, latents, values, int(chosen.sum()), self.d_sae)

    def dense(self) -> Float[Tensor, "row d_sae"]:
        """Return the whole matrix, zeros included."""
        out = self.values.new_zeros(self.n_rows, self.d_sae)
        out[self.rows, self.latents] = self.values
        return out


@dataclass(frozen=True)
class JointFirings:
    """Every (row, latent) that fires in at least one modality, once, with both activations (one of them may be 0)."""

    rows: Int64[Tensor, " firing"]
    latents: Int64[Tensor, " firing"]
    image: Float[Tensor, " firing"]
    text: Float[Tensor, " firing"]


@dataclass(frozen=True)
class PairedCodes:
    """Codes of both modalities by one dictionary, row by row in step."""

    ids: tuple[str, ...]
    image: SparseCodes | None
    text: SparseCodes | None
    units: Units | None = None
    """The picture and the caption text of each row; None derives them from the ids (see `known_units`)."""

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, modality: Modality) -> SparseCodes | None:
        """Return the codes of one modality."""
        return self.image if modality == "image" else self.text

    @property
    def d_sae(self) -> int:
        """Number of latents of the dictionary."""
        for codes in (self.image, self.text):
            if codes is not None:
                return codes.d_sae
        raise InputError(expected="codes of at least one modality", found="none", fix="encode images or captions first")

    @cached_property
    def known_units(self) -> Units:
        """The picture and the caption text of each row: `units`, or those derived from the ids."""
        return Units.from_ids(self.ids) if self.units is None else self.units

    @property
    def keys(self) -> UInt64[np.ndarray, " row"]:
        """The 64-bit key of the picture of each row. Statistics count pictures, not pairs."""
        return self.known_units.images

    @cached_property
    def joint(self) -> JointFirings:
        """The firings of both modalities joined by (row, latent), once per batch for every metric that needs them."""
        if self.image is None or self.text is None:
            raise InputError(
                expected="codes of both modalities",
                found="codes of one",
                fix="pass image-caption pairs to metrics that compare modalities",
            )
        image, text = self.image, self.text
        image_at = image.rows * self.d_sae + image.latents
        text_at = text.rows * self.d_sae + text.latents
        found = torch.searchsorted(text_at, image_at)
        padded = torch.nn.functional.pad(text_at, (0, 1), value=-1)
        matched = padded[found] == image_at
        alone = torch.ones_like(text_at, dtype=torch.bool)
        alone[found[matched]] = False
        on_caption = image.values.new_zeros(len(image_at))
        on_caption[matched] = text.values[found[matched]].to(on_caption)
        return JointFirings(
            torch.cat([image.rows, text.rows[alone]]),
            torch.cat([image.latents, text.latents[alone]]),
            torch.cat([image.values, image.values.new_zeros(int(alone.sum()))]),
            torch.cat([on_caption, text.values[alone].to(on_caption)]),
        )


@dataclass(frozen=True)
class Batch:
    """The data of one batch for metrics. Activations are those the dictionary reads (centred if it was trained so)."""

    acts: PairedActs
    codes: PairedCodes
    reconstruction: PairedActs
    judged: Mapping[str, PairedActs] = field(default_factory=dict)
    """Unit-norm embeddings of the same rows, by name of the judge."""
    truth: GroundTruth | None = None
    """Ground truth of the pairs, if known. `truth.rows(batch.ids)` returns the values of these rows."""
    targets: Mapping[str, Bool[np.ndarray, " row"]] = field(default_factory=dict)
    """Boolean targets by name: for each row, whether it has a label, or whether its pair is retrieved."""
    raw: PairedActs | None = None
    """Activations of the towers before centring."""

    @classmethod
    def from_dense(
        cls,
        image: Float[Tensor, "image_row d_sae"] | None = None,
        text: Float[Tensor, "text_row d_sae"] | None = None,
        *,
        ids: Sequence[str] | None = None,
        **fields: Any,
    ) -> "Batch":
        """Return a batch with these codes, to test a metric.

        Args:
            image: codes of the images, zeros included; None: no images.
            text: codes of the captions, in step; None: no captions.
            ids: pair id of each row; None numbers the rows.
            fields: other fields of the batch, such as `truth` or `targets`. Without `acts` and `reconstruction` these
                hold no activations.

        Raises:
            InputError: neither `image` nor `text` is given, or their numbers of rows differ.

        >>> batch = Batch.from_dense(image=torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        >>> batch.ids, batch.codes.image.latents.tolist()
        (('0', '1'), [1, 0])
        """
        sizes = {len(codes) for codes in (image, text) if codes is not None}
        if ids is not None:
            sizes.add(len(ids))
        if (image is None and text is None) or len(sizes) > 1:
            raise InputError(
                expected="codes of images, captions or both, with one row per id",
                found=f"{sorted(sizes)} rows" if len(sizes) > 1 else "no codes",
                fix="pass image=, text= or both, [row, d_sae] each",
            )
        named = tuple(ids) if ids is not None else tuple(map(str, range(sizes.pop())))
        on_image, on_text = (None if codes is None else SparseCodes.from_dense(codes) for codes in (image, text))
        none = PairedActs(named, None, None)
        return cls(**{"acts": none, "reconstruction": none, "codes": PairedCodes(named, on_image, on_text), **fields})

    @property
    def ids(self) -> tuple[str, ...]:
        """Pair id of each row."""
        return self.codes.ids
