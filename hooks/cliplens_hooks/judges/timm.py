"""A judge of images: the pooled features of a timm model, such as DINO or a supervised ViT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from cliplens.contracts import Judge
from cliplens.errors import InputError, unknown_name
from cliplens.records import PairedActs
from cliplens_hooks.judges.embedding import name_and_weights, unit_images


class TimmJudge(Judge):
    """A timm model without its head.

    Args:
        source: a timm name ("vit_small_patch14_dinov2"); without a network, with a weights file after a bar
            ("vit_small_patch14_dinov2|/path/model.safetensors").
    """

    name: ClassVar[str] = "timm"

    def __init__(self, source: str = "") -> None:
        self._source = source
        self._parts: tuple[Any, Any] | None = None

    @torch.no_grad()
    def embed(
        self, images: Sequence[Image.Image] | None, captions: Sequence[str] | None, ids: Sequence[str]
    ) -> PairedActs:
        """Return unit-norm pooled features of the images; captions are ignored."""
        if images is None:
            return PairedActs(tuple(ids), None, None)
        model, prepare = self._open()
        return PairedActs(tuple(ids), unit_images(images, prepare, model), None)

    def _open(self) -> tuple[Any, Any]:
        if self._parts is None:
            import timm

            name, weights = name_and_weights(self._source, "timm:vit_small_patch14_dinov2|/path/model.safetensors")
            if not timm.is_model(name.split(".")[0]):
                raise unknown_name("timm model", name, timm.list_models())
            if weights and not Path(weights).exists():
                raise InputError(
                    expected=f"weights of {name}", found=f"no file {weights}", fix="correct the path of the weights"
                )
            options = {"pretrained_cfg_overlay": {"file": weights}} if weights else {}
            model = timm.create_model(name, pretrained=True, num_classes=0, **options).eval()
            config = timm.data.resolve_model_data_config(model)
            self._parts = model, timm.data.create_transform(**config, is_training=False)
        return self._parts
