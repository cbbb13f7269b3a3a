"""Images and captions judged by another CLIP: any model `cliplens.load` opens, its final embeddings."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from PIL import Image

from cliplens import api
from cliplens.contracts import Judge
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.records import PairedActs

_BATCH = 64


class OpenClipJudge(Judge):
    """Another two-tower model; it embeds both modalities in one space, so scores across them can be made.

    Args:
        source: what `cliplens.load` takes, weights behind a bar: "ViT-B-32|/path/weights.safetensors",
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
        """Unit-norm embeddings of what is given."""
        clip = self._open()
        assert clip.preprocess is not None, "a model loaded by name has its preprocess"
        assert clip.tokenizer is not None, "and its tokenizer"
        prepare, tokenise = clip.preprocess, clip.tokenizer
        image = text = None
        if images is not None:
            cut = [images[a : a + _BATCH] for a in range(0, len(images), _BATCH)]
            tensors = (torch.stack([prepare(i) for i in part]).to(clip.device) for part in cut)
            image = torch.cat([clip.encode_image(part, normalize=True).float().cpu() for part in tensors])
        if captions is not None:
            parts = (tokenise(list(captions[a : a + _BATCH])) for a in range(0, len(captions), _BATCH))
            text = torch.cat([clip.encode_text(t.to(clip.device), normalize=True).float().cpu() for t in parts])
        return PairedActs(tuple(ids), image, text)

    def _open(self) -> HookedCLIP:
        if self._clip is None:
            if not self._source:
                raise InputError(
                    expected="the model that judges, such as open_clip:ViT-B-32|/path/weights.safetensors",
                    found="none",
                    do="name it behind the colon",
                )
            name, _, pretrained = self._source.partition("|")
            self._clip = api.load(name, pretrained or None)
        return self._clip
