"""Open a finished run for steering: its model, its dictionary, samples to steer, and latents by words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cliplens import keys
from cliplens.edits import Steering
from cliplens.errors import InputError
from cliplens.exemplars import load_exemplars
from cliplens.pairs import open_image
from cliplens.records import Pair
from cliplens.run import OpenedRun
from cliplens.sites import MODALITIES, SIDE_OF, Modality, Site
from cliplens_plugins.steering.choosing import Choice, choose
from cliplens_plugins.steering.context import steer
from cliplens_plugins.steering.parsing import Group

MOST = 24
"""Maximum number of latents that words resolve to, by default."""


@dataclass(frozen=True, eq=False)
class Run(OpenedRun):
    """A finished run, opened for steering."""

    @property
    def scored(self) -> bool:
        """Return whether the latents have names and classes yet."""
        return self.folder.latents.exists()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities that both the dictionary and the pairs have."""
        source = self.dictionary.provenance
        read = {Site.parse(name).modality for name in source.sites} if source else set(MODALITIES)
        has = {"image": self.pairs.has_images, "text": self.pairs.has_captions}
        return tuple(m for m in MODALITIES if m in read and has[m])

    def held_out(self, count: int, keep: Callable[[str], bool] = lambda _: True) -> list[Pair]:
        """Return the first `count` pairs that were held out from training and for whose ids `keep` is true.

        Pairs that the run has quarantined are skipped.
        """
        pairs = self.pairs
        kept = np.flatnonzero(keys.held_out(keys.pair_keys(pairs.ids), self.asked.held_out))
        ids = ((int(row), pairs.id_at(int(row))) for row in kept)
        good = (row for row, pair_id in ids if pair_id not in self.quarantined and keep(pair_id))
        return [pairs[row] for row in islice(good, count)]

    def held_out_samples(
        self, count: int, keep: Callable[[str], bool] = lambda _: True
    ) -> tuple[list[str], list[Image.Image] | list[str]]:
        """Return ids and images of held-out pairs, or their captions if the run has no images.

        Raises:
            InputError: no held-out pair is left.
        """
        chosen = self.held_out(count, keep)
        if not chosen:
            raise InputError(
                expected="held-out pairs to steer",
                found=f"none in {self.asked.pairs} that can be read",
                fix="pass --prompt or --image",
            )
        if "image" not in self.modalities:
            return [pair.id for pair in chosen], [str(pair.caption) for pair in chosen]
        return [pair.id for pair in chosen], [open_image(pair) for pair in chosen]

    def group(self, words: str, modality: Modality, most: int = MOST) -> Group:
        """Return the latents that represent the words, strongest first, with mean codes on captions that contain them.

        Args:
            words: the words.
            modality: whose codes are compared with the words.
            most: maximum number of latents, those with the largest mean codes.

        Raises:
            UnknownNameError: no latent represents the words; similar names are listed.
        """
        good = [c for c in self.find(words, self.dictionary.d_sae, modality=modality) if c.good]
        level = self.level(modality)
        units = {c.latent: c.level if np.isfinite(c.level) else level(c.latent) for c in good}
        strongest = sorted(units, key=lambda k: -(units[k] or 0.0))[:most]
        means = self.mean_codes(words, modality=modality)
        return Group(
            tuple(strongest),
            tuple(units[k] for k in strongest),
            None if means is None else tuple(means),
            n_good=len(good),
        )

    def chosen_edit(self) -> Choice:
        """Choose an edit for the run.

        Raises:
            InputError: the run was not scored, or none of its latents fires.
        """
        if not self.scored:
            raise InputError(
                expected="an edit, or a scored run for which one can be chosen",
                found="no --edit and a run without scores",
                fix="pass for example --edit '17=+4'",
            )
        modality: Modality = "image" if "image" in self.modalities else "text"
        return choose(self, modality)

    def level(self, modality: Modality) -> "Levels":
        """Return a function of a latent that returns its typical code, the median over its top samples."""
        images, texts = load_exemplars(self.folder.exemplars)
        found = images if modality == "image" else texts
        other = texts if modality == "image" else images
        return Levels(*(None if e is None else e.values for e in (found, other)))

    def site(self, modality: Modality) -> Site:
        """Return the dictionary's site of a modality.

        Raises:
            InputError: the dictionary has no site of this modality.
        """
        source = self.dictionary.provenance
        sites = [Site.parse(name) for name in source.sites] if source else [Site(SIDE_OF[modality], "hook_embedding")]
        for site in sites:
            if site.modality == modality:
                return site
        raise InputError(
            expected=f"a dictionary trained on {modality} activations",
            found=f"one trained on {', '.join(map(str, sites))}",
            fix="pass --prompt to steer captions, or --image or --pairs to steer images, as the dictionary allows",
        )

    @torch.no_grad()
    def embed(
        self, samples: Sequence[Image.Image] | Sequence[str], steering: Steering | None = None
    ) -> Float[Tensor, "sample d_embed"]:
        """Return the final embeddings of images or captions, with the steering applied inside the tower."""
        modality: Modality = "text" if isinstance(samples[0], str) else "image"
        site = self.site(modality)
        if steering is None:
            return self._embedded(samples, modality)
        with steer(self.clip, steering, site=site):
            return self._embedded(samples, modality)

    @torch.no_grad()
    def embedded_in_batches(self, samples: Sequence[Any], size: int) -> Float[Tensor, "sample d_embed"]:
        """Return the final embeddings of images or captions, computed in batches of `size`."""
        modality: Modality = "text" if isinstance(samples[0], str) else "image"
        parts = [self._embedded(samples[n : n + size], modality) for n in range(0, len(samples), size)]
        return torch.cat(parts)

    @torch.no_grad()
    def codes(self, sample: Image.Image | str) -> Float[Tensor, "1 d_sae"]:
        """Return the codes of one image or caption, as the reference of a swap."""
        modality: Modality = "text" if isinstance(sample, str) else "image"
        site = self.site(modality)
        tower, inputs = self._inputs([sample], modality)
        acts = tower.read(inputs, [site.hook])[site.hook]
        row = acts[:, 0] if acts.shape[1] == 1 else acts[torch.arange(1), tower.special_position(inputs)]
        codes: Tensor = self.dictionary.folded(modality).encode(row)
        return codes.to_dense() if codes.is_sparse else codes

    def _embedded(self, samples: Sequence[Any], modality: Modality) -> Float[Tensor, "sample d_embed"]:
        tower, inputs = self._inputs(samples, modality)
        return tower.encode(inputs)[1]

    def _inputs(self, samples: Sequence[Any], modality: Modality) -> tuple[Any, Tensor]:
        if modality == "text":
            return self.clip.text, self.clip.tokenizer(list(samples))  # type: ignore[misc]
        return self.clip.vision, torch.stack([self.clip.preprocess(s) for s in samples])  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Levels:
    """Typical codes of latents in one modality, or in the other for latents that do not fire in the first."""

    own: np.ndarray | None
    other: np.ndarray | None

    def __call__(self, latent: int) -> float | None:
        """Return the median code of the latent's top samples; None without top samples."""
        for values in (self.own, self.other):
            if values is not None:
                fired = values[latent][values[latent] > 0]
                if len(fired):
                    return float(np.median(fired))
        return None
