"""A finished run, opened again: its model, its dictionary, and pairs the dictionary was not trained on."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cliplens import api, keys
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoder, Pairs, tokenised
from cliplens.records import LatentTable
from cliplens.run.dictionary import scored_on
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, open_dictionary
from cliplens.settings import Settings
from cliplens.shapes import Images, Tokens

_SEED = 97


def asked_pairs(settings: Settings) -> Pairs:
    """Return the pairs a run was asked to look at."""
    tables = {"delimiter": settings.delimiter, "quoting": settings.quoting}
    pictures = {
        "background": settings.background,
        "orientation": settings.orientation,
        "max_pixels": settings.max_pixels,
    }
    given: dict[str, Any] = {name: value for name, value in {**tables, **pictures}.items() if value is not None}
    return api.read_pairs(
        settings.pairs,
        image_column=settings.image_column,
        caption_column=settings.caption_column,
        id_column=settings.id_column,
        image_root=settings.image_root,
        modalities=settings.modalities,
        **given,
    )


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """What later questions about a run need; everything is opened when it is first asked for."""

    folder: RunFolder

    @cached_property
    def asked(self) -> Settings:
        """What the run was asked for."""
        known = {field.name for field in fields(Settings)}
        return Settings(**{k: v for k, v in self.folder.read_settings()["asked"].items() if k in known})

    @cached_property
    def clip(self) -> HookedCLIP:
        """Its model."""
        return api.load(self.asked.model, self.asked.pretrained, device=self.asked.device, dtype=self.asked.dtype)

    @cached_property
    def dictionary(self) -> Dictionary:
        """Its dictionary."""
        if self.asked.sae is not None:
            return open_dictionary(Path(self.asked.sae))
        return Dictionary.load(self.folder.sae)

    @cached_property
    def table(self) -> LatentTable:
        """Its latents.

        Raises:
            InputError: the run was not scored.
        """
        if not self.folder.latents.exists():
            raise InputError(
                expected="a run that was scored",
                found=f"no latents.parquet in {self.folder.path}",
                fix="finish it: cliplens run --resume with the same options",
            )
        return LatentTable.load(self.folder.latents)

    def inputs(self, count: int) -> tuple[Images, Tokens]:
        """Preprocessed images and captions' tokens, in step, of up to `count` scored pairs, drawn by id.

        Raises:
            InputError: the run has no pairs of images and captions, or its model lacks a tower.
        """
        asked = self.asked
        pairs = asked_pairs(asked)
        if self.clip.preprocess is None or self.clip.tokenizer is None or not (pairs.has_images and pairs.has_captions):
            raise InputError(
                expected="a run over images and captions",
                found=f"{asked.pairs} and {self.clip.identity.name}",
                fix="give a run of both towers",
            )
        of_pair = keys.pair_keys(pairs.ids)
        scored = np.flatnonzero(scored_on(asked)(of_pair))
        places = scored[np.argsort(keys.hashed(of_pair[scored], _SEED), kind="stable")[:count]]
        decoded = Decoder(pairs, self.clip.preprocess, True)[places]
        assert decoded.images is not None
        assert decoded.captions is not None
        return decoded.images.to(self.clip.dtype), tokenised(decoded.captions, self.clip.tokenizer).tokens
