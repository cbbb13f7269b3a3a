"""A judge that uses the final embeddings of another CLIP: any model that `cliplens.load` opens."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from PIL import Image

from cliplens import api
from cliplens.contracts import Judge
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs
from cliplens_hooks.judges.embedding import batches, name_and_weights, unit_images, unit_rows


class OpenClipJudge(Judge):
    """Another two-tower model. It embeds both modalities in one space, so it can also compare across modalities.

    Args:
        source: name for `cliplens.load`, with weights after a bar: "ViT-B-32|/path/weights.safetensors",
            "ViT-B-32|laion2b_s34b_b79k", "local-dir:/path", "world-plain".
    """

    name: ClassVar[str] = "open_clip"

    def __init__(self, source: str = "") -> None:
        self._source = source
        self._clip: HookedCLIP | None = None

    @torch.no_grad()
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Return unit-norm embeddings of the images and of the captions."""
        clip = self._open()
        prepare, tokenise = clip.preprocess, clip.tokenizer
        assert prepare is not None, "a model loaded by name has its preprocess"
        assert tokenise is not None, "and its tokenizer"
        image = text = None
        if images is not None:
            image = unit_images(images, prepare, lambda given: clip.encode_image(given.to(clip.device)))
        if captions is not None:
            said = (tokenise(list(part)).to(clip.device) for part in batches(captions))
            text = unit_rows(clip.encode_text(tokens) for tokens in said)
        return PairedActs(tuple(ids), image, text)

    def _open(self) -> HookedCLIP:
        if self._clip is None:
            example = "open_clip:ViT-B-32|/path/weights.safetensors"
            self._clip = api.load(*name_and_weights(self._source, example))
        return self._clip
