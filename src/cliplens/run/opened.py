"""Open a finished run: its model, its dictionary, its table and its pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from cliplens import api, keys
from cliplens.errors import DamagedError, InputError, MismatchError
from cliplens.exemplars import load_exemplars
from cliplens.hooked import HookedCLIP
from cliplens.pairs import Decoded, Decoder, Pairs, open_image, read_quarantine, tokenised
from cliplens.records import Exemplars, LatentTable, Pair, PairedActs
from cliplens.run.dictionary import by_modality, scored_on, train_again, training_rows
from cliplens.run.embeddings import embeddings_of, pairs_of_embeddings
from cliplens.run.find import Candidate, Finder
from cliplens.run.remedies import check_whole
from cliplens.runfolder import RunFolder
from cliplens.sae import Dictionary, located, open_dictionary
from cliplens.settings import Settings
from cliplens.shapes import Images, Tokens
from cliplens.sites import MODALITIES, Modality, Site
from cliplens.store import Cache

_SEED = 97


def asked_pairs(settings: Settings) -> Pairs:
    """Return the pairs that the settings of a run name."""
    if settings.embeddings:
        return pairs_of_embeddings(settings, embeddings_of(settings))
    return api.read_pairs(settings.pairs, **settings.reading)


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A finished run. Each part is opened on first use.

    Args:
        folder: the run folder, or its path.

    Raises:
        InputError: there is no run in the folder.
    """

    folder: RunFolder

    def __post_init__(self) -> None:
        if isinstance(self.folder, str | Path):
            object.__setattr__(self, "folder", RunFolder.open(self.folder))

    @cached_property
    def asked(self) -> Settings:
        """The settings of the run.

        Raises:
            DamagedError: run.toml holds no usable settings.
        """
        known = {field.name for field in fields(Settings)}
        found = {k: v for k, v in self.folder.read_settings()["asked"].items() if k in known}
        try:
            return Settings(**found)
        except (TypeError, ValueError) as error:
            raise DamagedError(
                expected=f"the settings of a run in {self.folder.toml}",
                found=str(error),
                fix=f"write it again with cliplens run --resume --out {self.folder.path} and the options of the run",
            ) from error

    @cached_property
    def clip(self) -> HookedCLIP:
        """The model of the run.

        Raises:
            InputError: the run was made on embeddings, without a model.
            MismatchError: the weights of the model are not those of the run.
        """
        if self.asked.embeddings:
            raise InputError(
                expected="a run with a model",
                found="a run on embeddings without a model",
                fix="make a run on images and captions with cliplens run --model NAME --pairs captions.csv",
            )
        clip = api.load(self.asked.model, self.asked.pretrained, device=self.asked.device, dtype=self.asked.dtype)
        recorded = self.folder.read_settings().get("model", {}).get("weights_sha256")
        self._check("model", self.asked.model, recorded, clip.identity.weights_sha256)
        return clip

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs of the run.

        Raises:
            MismatchError: the pairs were changed after the run.
        """
        pairs = asked_pairs(self.asked)
        recorded = self.folder.read_settings().get("pairs", {}).get("sha256")
        self._check("pairs", self.asked.source, recorded, pairs.sha256)
        return pairs

    def _check(self, kind: str, name: str, recorded: str | None, now: str) -> None:
        if recorded not in (None, now):
            raise MismatchError(
                expected=f"the {kind} that {self.folder.path} was made with",
                found=f"{name}, which has changed since then (another hash)",
                fix=f"restore the {kind}, or make a new run",
            )

    @cached_property
    def dictionary(self) -> Dictionary:
        """The dictionary of the run."""
        if self.asked.sae is not None:
            return open_dictionary(located(self.asked.sae), self.asked.layout)
        return Dictionary.load(self.folder.sae)

    @cached_property
    def table(self) -> LatentTable:
        """The latent table of the run.

        Raises:
            InputError: the run is not scored yet.
            DamagedError: the table was altered after it was written.
        """
        if not self.folder.latents.exists():
            raise InputError(
                expected="a run that was scored",
                found=f"no latents.parquet in {self.folder.path}",
                fix="finish it with cliplens run --resume and the same options",
            )
        check_whole(self.folder, self.folder.latents.name)
        return LatentTable.load(self.folder.latents)

    @cached_property
    def quarantined(self) -> frozenset[str]:
        """Ids of pairs that could not be read."""
        return frozenset(str(entry["id"]) for entry in read_quarantine(self.folder.quarantine))

    def find(self, words: str, count: int = 10, *, modality: Modality | None = None) -> list[Candidate]:
        """Return the latents that may represent the words, best first.

        Candidates are ranked by their name, by their code when the words are encoded, by the correlation of their codes
        with captions that contain the words, and by the share of those captions on which they fire.

        Args:
            words: one or more words, such as "red".
            count: maximum number of candidates.
            modality: modality whose codes are compared with the captions; by default images, if possible.

        Raises:
            UnknownNameError: no latent is a good candidate; similar names are listed.
        """
        return self._finders[self._read(modality)].find(words, count)

    def captions_of(self, latent: int, count: int = 5, *, modality: Modality | None = None) -> list[str]:
        """Return captions of a latent's strongest samples of one modality; None takes images first, then captions."""
        return [str(pair.caption) for pair in self._strongest(latent, count, modality) if pair.caption][:count]

    def top_pictures(self, latent: int, count: int = 5, *, modality: Modality | None = None) -> list[Image.Image]:
        """Return thumbnails of a latent's strongest samples of one modality; None takes images first, then captions."""
        kept = [pair for pair in self._strongest(latent, count, modality) if pair.source is not None]
        return [open_image(pair) for pair in kept[:count]]

    def _strongest(self, latent: int, count: int, modality: Modality | None) -> list[Pair]:
        kept = [e for m, e in zip(MODALITIES, self._exemplars, strict=True) if e is not None and modality in (None, m)]
        return [pair for e in kept for pair, _ in e.of(latent)[:count]]

    @cached_property
    def _exemplars(self) -> tuple[Exemplars | None, Exemplars | None]:
        return load_exemplars(self.folder.exemplars)

    def mean_codes(self, words: str, *, modality: Modality | None = None) -> Float[np.ndarray, " d_sae"] | None:
        """Return the mean code of each latent over pairs with the words in the caption; None with too few of them."""
        return self._finders[self._read(modality)].mean_codes(words)

    def _read(self, modality: Modality | None) -> Modality:
        """Return the modality, or else the first one of the dictionary."""
        if modality is not None:
            return modality
        source = self.dictionary.provenance
        read = {Site.parse(name).modality for name in source.sites} if source else set(MODALITIES)
        return next(m for m in MODALITIES if m in read)

    @cached_property
    def _finders(self) -> dict[Modality, Finder]:
        return {m: Finder(self, m) for m in MODALITIES}

    def inputs(self, count: int) -> tuple[Images, Tokens]:
        """Return preprocessed images and caption tokens of up to `count` scored pairs, drawn by id.

        Raises:
            InputError: the run has no pairs of images and captions, or its model lacks a tower.
        """
        found = self.sample(count)
        assert found.images is not None
        assert found.captions is not None
        assert self.clip.tokenizer is not None
        return found.images.to(self.clip.dtype), tokenised(found.captions, self.clip.tokenizer).tokens

    def sample(self, count: int) -> Decoded:
        """Return up to `count` scored pairs drawn by id: their ids, prepared images and captions, in step.

        Raises:
            InputError: the run has no pairs of images and captions, or its model lacks a tower.
        """
        pairs = self.pairs
        if self.clip.preprocess is None or self.clip.tokenizer is None or not (pairs.has_images and pairs.has_captions):
            raise InputError(
                expected="a run over images and captions",
                found=f"{self.asked.pairs} and {self.clip.identity.name}",
                fix="use a run on images and captions with a model of both towers",
            )
        of_pair = keys.pair_keys(pairs.image_ids)
        scored = np.flatnonzero(scored_on(self.asked)(of_pair))
        places = scored[np.argsort(keys.hashed(of_pair[scored], _SEED), kind="stable")[:count]]
        return Decoder(pairs, self.clip.preprocess, True)[places]

    def scored_acts(self, count: int) -> PairedActs:
        """Return the stored activations of up to `count` scored pairs at the sites of the dictionary, in step.

        Raises:
            InputError: the activations of the run were removed, or have many rows per pair.
        """
        cache = Cache.open(self.folder.activations).by_picture(self.pairs.image_ids)
        read: list[PairedActs] = []
        for batch in cache.batches(**by_modality(self.asked.sites), keep=scored_on(self.asked)):
            read.append(batch)
            if sum(len(part) for part in read) >= count:
                break
        image, text = ([a for part in read if (a := part.of(m)) is not None] for m in MODALITIES)
        sides = (torch.cat(parts)[:count] if parts else None for parts in (image, text))
        return PairedActs(tuple(i for part in read for i in part.ids)[:count], *sides)

    def reseeded(self, seed: int) -> Dictionary:
        """Return the dictionary of the run trained again on the same activations from another seed, without saving it.

        Raises:
            InputError: the run did not train its dictionary, or the activations of the run were removed.
        """
        if self.asked.sae is not None:
            raise InputError(
                expected="a run that trained its dictionary",
                found=f"the dictionary {self.asked.sae}",
                fix="make a run without --sae",
            )
        asked = replace(self.asked, seed=seed, d_sae=self.dictionary.d_sae)
        return train_again(training_rows(Cache.open(self.folder.activations), asked), asked)

    def pictures_of(self, ids: Sequence[str]) -> list[str]:
        """Return an identifier of the picture of each pair. Pairs of the same picture have the same identifier."""
        places, pictures = self.pairs.indices(ids), self.pairs.image_ids
        return [str(pictures[places[i]]) for i in ids]
