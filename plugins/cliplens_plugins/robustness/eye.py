"""Encode pixels with a model and a dictionary: embedding, activations, codes, pre-activations, with gradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary
from cliplens.sites import Modality
from cliplens.studies import site_of
from cliplens_plugins.robustness.pixels import Pixels, PixelScale, pixel_scale

_ONE_POSITION = ("auto", "cls", "eot")
_EMBEDDING = "hook_embedding"
Change = Callable[[Float[Tensor, "row d_in"]], Float[Tensor, "row d_in"]]
"""A change of activations, such as a defence."""


class Reader:
    """A dictionary as a function of activations of one modality. Gradients flow through codes and pre-activations."""

    def __init__(self, dictionary: Dictionary, modality: Modality = "image") -> None:
        self.dictionary, self.modality = dictionary, modality
        reader: Any = dictionary.folded(modality)
        reader.turn_off_forward_pass_hook_z_reshaping()  # rows are flat here
        self._reader = reader

    def read(self, rows: Float[Tensor, "row d_in"]) -> tuple[Float[Tensor, "row d_sae"], Float[Tensor, "row d_sae"]]:
        """Return codes and pre-activations of rows.

        Pre-activations are the values before ReLU, threshold or top-k. A latent that is silent has a gradient there
        and none in its code. Matching pursuit has no pre-activations: the inner products with all latents stand in.
        """
        reader, seen = self._reader, []
        given = rows.to(reader.W_dec)
        point = getattr(reader, "hook_sae_acts_pre", None)
        handle = None if point is None else point.register_forward_hook(lambda module, inputs, out: seen.append(out))
        try:
            codes = reader.encode(given)
        finally:
            if handle is not None:
                handle.remove()
        pre = seen[0] if seen else reader.process_sae_in(given) @ reader.W_enc
        if seen and getattr(reader.cfg, "rescale_acts_by_decoder_norm", False):
            pre = pre * reader.W_dec.norm(dim=-1)
        return codes.to_dense() if codes.is_sparse else codes, pre

    def codes(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_sae"]:
        """Return the codes of rows."""
        return self.read(rows)[0]

    def decode(self, codes: Float[Tensor, "row d_sae"], like: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Return raw activations of codes that were changed after `read`, with dtype and device of `like`."""
        rebuilt: Tensor = self._reader.decode(codes)
        return rebuilt.to(like)


@dataclass(frozen=True)
class View:
    """Encodings of a batch of pixels."""

    raw: Float[Tensor, "sample d_embed"]
    """The embedding before it is normalised."""
    acts: Float[Tensor, "sample pos d_in"] | None
    """Activations at the site of the dictionary."""
    reader: Reader | None

    @property
    def unit(self) -> Float[Tensor, "sample d_embed"]:
        """The unit-norm embedding."""
        return F.normalize(self.raw, dim=-1)

    @cached_property
    def _read(self) -> tuple[Tensor, Tensor]:
        assert self.acts is not None
        assert self.reader is not None
        codes, pre = self.reader.read(self.acts.flatten(0, 1))
        return codes.unflatten(0, self.acts.shape[:2]), pre.unflatten(0, self.acts.shape[:2])

    @property
    def codes(self) -> Float[Tensor, "sample pos d_sae"]:
        """The codes of every position the dictionary reads."""
        return self._read[0]

    @property
    def pre(self) -> Float[Tensor, "sample pos d_sae"]:
        """The pre-activations of every position the dictionary reads."""
        return self._read[1]


class Eye:
    """A model as a function of pixels in [0, 1], with the dictionary that reads its image tower.

    Args:
        clip: the model, with an image tower and a preprocess.
        dictionary: a dictionary of its image tower; None for embeddings alone.
        size: side of the pixels it is given (height, width), if another model's; they are resized to the model's own.

    Raises:
        InputError: the model has no usable preprocess, or the dictionary reads no images.
    """

    def __init__(
        self, clip: HookedCLIP, dictionary: Dictionary | None = None, *, size: tuple[int, int] | None = None
    ) -> None:
        self.clip, self.size = clip, size
        if dictionary is not None and dictionary.device != clip.device:
            dictionary = dictionary.to(clip.device)
        self.scale: PixelScale = pixel_scale(clip.preprocess)
        self.reader = None if dictionary is None else Reader(dictionary)
        self._site = None if dictionary is None else site_of(dictionary, "image")
        token = dictionary.provenance.token if dictionary is not None and dictionary.provenance else "auto"
        self._one_position = token in _ONE_POSITION and getattr(clip.vision, "n_special", 0) > 0

    def inputs(self, pixels: Pixels) -> Pixels:
        """Return the inputs of the model for pixels."""
        if self.size is not None:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False, antialias=True)
        return self.scale.to_inputs(pixels.to(self.clip.device))

    def look(self, pixels: Pixels, change: Change | None = None) -> View:
        """Return what the model sees in pixels, with gradients.

        Args:
            pixels: in [0, 1].
            change: a change of the activations at the site of the dictionary; the view has them as they were before it.
        """
        clip, inputs = self.clip, self.inputs(pixels)
        tower: Any = clip.vision
        if self._site is None:
            return View(_wide(clip.encode_image(inputs)), None, None)
        if self._site.hook == _EMBEDDING:
            projected, unit = tower.encode(inputs)
            acts = unit.flatten(2) if unit.ndim == 3 else unit[:, None]
            if change is None:
                return View(_wide(projected), acts, self.reader)
            return View(_wide(change(acts.flatten(0, 1)).unflatten(0, acts.shape[:2])), acts, self.reader)
        return self._look_inside(tower, inputs, change)

    def _look_inside(self, tower: Any, inputs: Tensor, change: Change | None) -> View:
        kept: list[Tensor] = []
        assert self._site is not None

        def hook(activation: Tensor, hook: Any) -> Tensor | None:
            flat = activation.flatten(2)
            one = self._one_position and flat.shape[1] > 1
            own = flat[:, :1] if one else flat
            kept.append(own)
            if change is None:
                return None
            moved = change(own.flatten(0, 1)).unflatten(0, own.shape[:2]).to(flat)
            whole = torch.cat([moved, flat[:, 1:]], 1) if one else moved
            return whole.reshape(activation.shape)

        with self.clip.hooks(fwd_hooks=[(str(self._site), hook)]):
            projected = tower.encode(inputs)[0]
        return View(_wide(projected), kept[0], self.reader)

    @torch.no_grad()
    def views(self, pixels: Pixels, change: Change | None = None, *, batch: int = 128) -> View:
        """Return one view of many pictures, without gradients, on the CPU, the embedding in float64."""
        seen = [self.look(part, change) for part in parts_of(pixels, batch)]
        raw = torch.cat([view.raw.double().cpu() for view in seen])
        acts = [view.acts for view in seen if view.acts is not None]
        return View(raw, torch.cat(acts) if acts else None, self.reader)


class PixelClassifier(nn.Module):
    """A zero-shot classifier of pixels in [0, 1], as libraries of attacks expect it: `model(pixels)` returns logits.

    >>> import cliplens
    >>> eye = Eye(cliplens.load("world"))
    >>> PixelClassifier(eye, torch.eye(64)[:3])(torch.zeros(2, 3, 48, 48)).shape
    torch.Size([2, 3])
    """

    prototypes: Tensor

    def __init__(self, eye: Eye, prototypes: Float[Tensor, "class d_embed"], *, scale: float = 100.0) -> None:
        super().__init__()
        self.eye, self.scale = eye, scale
        self.register_buffer("prototypes", F.normalize(prototypes.float(), dim=-1).to(eye.clip.device))
        self.eval()

    def forward(self, pixels: Pixels) -> Float[Tensor, "sample class"]:
        """Return `scale` times the cosine with each class."""
        return self.scale * self.eye.look(pixels).unit.float() @ self.prototypes.T


def _wide(embedding: Float[Tensor, "sample ..."]) -> Float[Tensor, "sample d_embed"]:
    """Return embeddings as rows of at least float32, so that margins of half-precision models are not rounded away."""
    rows = embedding.flatten(1)
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


def parts_of(pixels: Pixels, batch: int) -> Iterator[Pixels]:
    """Yield the pixels in batches."""
    yield from pixels.split(batch)
