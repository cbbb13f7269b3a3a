"""What is steered on a run folder: its model, its dictionary, and samples turned into embeddings while steering."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
from cliplens.run import OpenedRun, asked_pairs
from cliplens.sites import SIDE_OF, Modality, Site
from cliplens_plugins.steering.choosing import Choice, choose
from cliplens_plugins.steering.context import steer


@dataclass(frozen=True, eq=False)
class Run(OpenedRun):
    """A finished run, opened for steering."""

    @property
    def scored(self) -> bool:
        """Whether its latents have names and classes yet."""
        return self.folder.latents.exists()

    def held_out(self, count: int, keep: Callable[[str], bool] = lambda _: True) -> list[Pair]:
        """The first pairs the dictionary was not trained on, of those whose ids are to be kept."""
        pairs = asked_pairs(self.asked)
        kept = np.flatnonzero(keys.held_out(keys.pair_keys(pairs.ids), self.asked.held_out))
        chosen = islice((int(row) for row in kept if keep(pairs.ids[row])), count)
        return [pairs[row] for row in chosen]

    def chosen_edit(self) -> Choice:
        """The edit to begin with.

        Raises:
            InputError: the run was not scored, or nothing in it has a name.
        """
        images, texts = load_exemplars(self.folder.exemplars) if self.scored else (None, None)
        exemplars = images or texts
        if exemplars is None:
            raise InputError(expected="an edit", found="none, and a run without scores", fix="give --edit '17=+4'")
        return choose(self.table, exemplars, self.asked.pairs, self.level("image"))

    def level(self, modality: Modality) -> "Levels":
        """The typical code of a latent: the median over its top samples."""
        images, texts = load_exemplars(self.folder.exemplars)
        found = images if modality == "image" else texts
        other = texts if modality == "image" else images
        return Levels(*(None if e is None else e.values for e in (found, other)))

    def site(self, modality: Modality) -> Site:
        """Where the dictionary reads that modality.

        Raises:
            InputError: it does not.
        """
        source = self.dictionary.provenance
        sites = [Site.parse(name) for name in source.sites] if source else [Site(SIDE_OF[modality], "hook_embedding")]
        for site in sites:
            if site.modality == modality:
                return site
        raise InputError(
            expected=f"a dictionary that reads {modality}s",
            found=f"one made on {', '.join(map(str, sites))}",
            fix="give --prompt for captions, --image or --pairs for images, as the dictionary has them",
        )

    @torch.no_grad()
    def embed(
        self, samples: Sequence[Image.Image] | Sequence[str], steering: Steering | None = None
    ) -> Float[Tensor, "sample d_embed"]:
        """Final embeddings of pictures or captions, unit norm before steering, with the steering inside the tower."""
        modality: Modality = "text" if isinstance(samples[0], str) else "image"
        site = self.site(modality)
        if steering is None:
            return self._embedded(samples, modality)
        with steer(self.clip, steering, site=site):
            return self._embedded(samples, modality)

    @torch.no_grad()
    def codes(self, sample: Image.Image | str) -> Float[Tensor, "1 d_sae"]:
        """Codes of one picture or caption, to swap with."""
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
    """Typical codes by latent, of one modality first and of the other where that one is silent."""

    own: np.ndarray | None
    other: np.ndarray | None

    def __call__(self, latent: int) -> float | None:
        """The median code of the latent's top samples; None when it has none."""
        for values in (self.own, self.other):
            if values is not None:
                fired = values[latent][values[latent] > 0]
                if len(fired):
                    return float(np.median(fired))
        return None


def samples_of(
    run: Run, prompts: Sequence[str], images: Sequence[Path], pairs: int, keep: Callable[[str], bool]
) -> tuple[list[str], list[Image.Image] | list[str]]:
    """Labels and samples to steer: prompts, pictures from files, or held-out pairs of the run."""
    if prompts:
        return list(prompts), list(prompts)
    if images:
        opened = [Image.open(path).convert("RGB") for path in images]
        return [path.name for path in images], opened
    chosen = run.held_out(pairs, keep)
    return [pair.id for pair in chosen], [open_image(pair) for pair in chosen]
