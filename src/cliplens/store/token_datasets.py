"""Datasets for SAELens' training runner: captions as token ids, images as image tokens.

Each row holds `context_size` integers: a whole caption with start, end and padding, or the index of an image, which the
vision tower looks up in the source attached here.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoder, Pairs, Quarantine, tokenised
from cliplens.progress import Bar
from cliplens.sites import Side, Site
from cliplens.stream import SiteReader

if TYPE_CHECKING:
    import datasets

_AT_ONCE = 256


def caption_dataset(pairs: Pairs, clip: HookedCLIP, *, quarantine: Quarantine | None = None) -> "datasets.Dataset":
    """Return captions as a tokenised dataset, for `LanguageModelSAETrainingRunner(override_model=clip.text)`.

    Columns: `tokens` (the model's context length) and `id`. Rows are in the order of the pairs; empty captions are left
    out. Use it with `context_size` = the context length and `prepend_bos=False`.

    Raises:
        PairsError: too many empty captions.
    """
    decoder = _decoder(pairs, clip, "text")
    held = Quarantine() if quarantine is None else quarantine
    tokens: list[Int[np.ndarray, "_ context"]] = []
    ids: list[str] = []
    for good in _good(decoder, held):
        said = [pairs.caption_at(place) or "" for place in good]
        tokens.append(tokenised(said, clip.tokenizer).tokens.numpy().astype(np.int32))  # type: ignore[arg-type]
        ids += [pairs.id_at(place) for place in good]
    return _dataset(np.concatenate(tokens), ids)


def image_dataset(
    pairs: Pairs, clip: HookedCLIP, *, one_token: bool = False, quarantine: Quarantine | None = None
) -> "datasets.Dataset":
    """Return images as image tokens, for `LanguageModelSAETrainingRunner(override_model=clip.vision)`.

    Sets `clip.vision.image_source`, which looks up the images of these pairs: keep the files in place while training,
    and call this function again for other pairs. Columns: `tokens` (one per position: 0 at the class token, else the
    index of the image plus one) and `id`. Every image is opened once; images that cannot be opened are left out.

    Args:
        one_token: one token per image, for hooks with one position (`context_size=1`).

    Raises:
        PairsError: too many images that cannot be opened.
    """
    decoder = _decoder(pairs, clip, "vision")
    assert clip.vision is not None  # _decoder raised an error for a model without the tower.
    held = Quarantine() if quarantine is None else quarantine
    places = np.concatenate(list(_good(decoder, held)))
    tokens = clip.vision.image_tokens(torch.from_numpy(places))
    clip.vision.image_source = ImageLookup(decoder)
    kept = tokens[:, -1:] if one_token else tokens
    return _dataset(kept.numpy().astype(np.int32), [pairs.id_at(p) for p in places.tolist()])


class ImageLookup:
    """Preprocessed images of pairs, by index."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def __call__(self, numbers: Int[Tensor, " image"]) -> Float[Tensor, "image channel height width"]:
        """Return the images of these indices.

        Raises:
            InputError: an index is out of range, or an image can no longer be opened.
        """
        places = numbers.numpy().astype(np.int64)
        if len(places) and not (places.min() >= 0 and places.max() < len(self.decoder)):
            raise InputError(
                expected=f"indices of the {len(self.decoder)} images of {self.decoder.pairs.name!r}",
                found=f"{places.min()} to {places.max()}",
                fix="make the dataset again: cliplens.image_dataset(pairs, clip)",
            )
        decoded = self.decoder[places]
        if decoded.bad or decoded.images is None:
            pair, reason = decoded.bad[0]
            raise InputError(
                expected=f"the image of {pair.id!r}, which could be opened before",
                found=reason,
                fix="restore the file, or make the dataset again",
            )
        return decoded.images


def _decoder(pairs: Pairs, clip: HookedCLIP, side: Side) -> Decoder:
    return SiteReader(clip, [Site(side, "hook_embedding")]).decoder(pairs)


def _good(decoder: Decoder, held: Quarantine) -> Iterator[np.ndarray]:
    """Return the indices of the usable pairs, batch by batch."""
    with Bar(total=len(decoder), desc="looking at pairs", unit="pair") as bar:
        for start in range(0, len(decoder), _AT_ONCE):
            decoded = decoder[np.arange(start, min(start + _AT_ONCE, len(decoder)))]
            for pair, reason in decoded.bad:
                held.add(pair, reason)
            if decoded.bad:
                held.check(len(decoder))
            bar.update(len(decoded.requested))
            yield decoded.indices


def _dataset(tokens: Int[np.ndarray, "row context"], ids: list[str]) -> "datasets.Dataset":
    import datasets

    ints = datasets.Sequence(datasets.Value("int32"), length=tokens.shape[1])
    features = datasets.Features({"tokens": ints, "id": datasets.Value("string")})
    return datasets.Dataset.from_dict({"tokens": tokens, "id": ids}, features=features)
