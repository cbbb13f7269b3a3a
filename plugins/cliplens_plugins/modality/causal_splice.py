"""Measure the causal modality (ours) with the dictionary spliced in at any hook of either tower.

A latent is ablated in the image tower, the text tower, or both. The reconstruction error is kept, so without an
ablation the output is bit-identical to the model's. The control subtracts a random direction of the same norm at the
same positions of the same samples. Two log probabilities are measured, in nats:

    matching    mean over pairs of log softmax(scale * cos) at the true pair, averaged over both directions
    zero_shot   mean over images of log softmax(scale * cos) over class prompts at the true class

Only samples on which a latent fires are run again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.deprecation import renamed_keywords
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens.progress import Bar
from cliplens.sites import MODALITY_OF, Modality
from cliplens.statistics import mean_and_deviation
from cliplens.tasks import ids_of_rows, other_right_pairs
from cliplens_plugins.modality.causal import TOWERS, CausalEffect, pair_log_probability

_ACTS, _OUTPUT = "hook_sae_acts_post", "hook_sae_output"


@dataclass(frozen=True)
class LatentEffect:
    """Effect of ablating one latent. `zero_shot` is None without classes."""

    latent: int
    matching: CausalEffect
    zero_shot: CausalEffect | None

    @property
    def modality(self) -> float:
        """Share of the image tower in the change of matching, in [0, 1]: the causal counterpart of the modality score.

        nan if neither ablation changes matching. Compare `matching` with its random directions to see if the latent
        matters at all.
        """
        image, text = abs(self.matching.image), abs(self.matching.text)
        return image / (image + text) if image + text > 0 else float("nan")


@torch.no_grad()
@renamed_keywords(batch_size="forward_batch")
def causal_effects(
    clip: HookedCLIP,
    images: Float[Tensor, "image channel height width"],
    tokens: Int[Tensor, "caption context"],
    dictionaries: Any,
    latents: Sequence[int],
    *,
    classes: tuple[Int[Tensor, "prompt context"], Int[Tensor, " image"]] | None = None,
    n_random: int = 10,
    forward_batch: int = 64,
    seed: int = 0,
) -> list[LatentEffect]:
    """Ablate latents one by one in each tower and measure the change in matching and in zero-shot classification.

    Args:
        clip: the model.
        images: preprocessed images.
        tokens: tokens of their captions, in the same order.
        dictionaries: the dictionaries as `clip.saes` accepts them: a cliplens `Dictionary` or SAELens SAEs, at most one
            per tower.
        latents: indices of the latents.
        classes: tokens of the class prompts, and the class of each image.
        n_random: number of matched random directions per latent.
        forward_batch: pairs per forward.
        seed: seed of the random directions.

    Returns:
        One effect per latent. Below 0 = the latent helps; a tower without a dictionary has effect 0.

    Raises:
        InputError: there are fewer than two pairs, the numbers of images and captions differ, a latent is out of range,
            or a tower has two dictionaries.
    """
    if len(images) < 2 or len(images) != len(tokens):
        raise InputError(
            expected="at least two images with a caption each",
            found=f"{len(images)} images and {len(tokens)} captions",
            fix="pass one caption per image",
        )
    with clip.saes(dictionaries, use_error_term=True):
        given: dict[str, Tensor] = {"image": images, "text": tokens}
        if classes is not None:
            given["prompt"] = classes[0]
        shown = _Shown(clip, given, forward_batch)
        labels = None if classes is None else classes[1]
        scale = float(clip.logit_scale_and_bias()[0])
        others = other_right_pairs(len(images), ids_of_rows(images), ids_of_rows(tokens))
        measured = _Measured(shown.clean, labels, scale, others)
        wanted = Bar(latents, desc="ablating latents", unit="latent")
        return [_effect(shown, measured, latent, n_random, seed) for latent in wanted]


def _effect(shown: "_Shown", measured: "_Measured", latent: int, n_random: int, seed: int) -> LatentEffect:
    ablated, taken = shown.ablated(latent)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + latent)
    found = measured.effects(ablated)
    controls = [measured.effects(shown.along_random(taken, generator)) for _ in range(n_random)]

    def effect(what: str) -> CausalEffect:
        random = {tower: mean_and_deviation([c[what][tower] for c in controls]) for tower in TOWERS}
        return CausalEffect(**found[what], random=random)

    return LatentEffect(latent, effect("matching"), effect("zero_shot") if "zero_shot" in found else None)


@dataclass(frozen=True)
class _Taken:
    """The samples that an ablation changed, and the norm of the subtracted vector at each position."""

    rows: Int[np.ndarray, " firing_sample"]
    size: Float[Tensor, "firing_sample *pos"]
    width: int


class _Shown:
    """Runs the model on images, captions and prompts while the dictionaries are spliced in."""

    def __init__(self, clip: HookedCLIP, given: dict[str, Tensor], forward_batch: int) -> None:
        self._clip, self._given, self._batch = clip, given, forward_batch
        self._places = _places(clip)
        self._fires: dict[str, Bool[Tensor, "sample d_sae"]] = {}
        self.clean: dict[str, Float[Tensor, "sample d"]] = {}
        for what, samples in given.items():
            every = np.arange(len(samples))
            seen: list[Tensor] = []
            self.clean[what] = self._run(what, every, acts=partial(_remember_firing, seen))
            if seen:
                self._fires[what] = torch.cat(seen)

    def ablated(self, latent: int) -> tuple[dict[str, Tensor], dict[str, _Taken]]:
        """Return the embeddings with the latent's activation set to zero, and what that subtracted."""
        out, taken = dict(self.clean), {}
        for what, fires in self._fires.items():
            if not 0 <= latent < fires.shape[1]:
                raise InputError(
                    expected=f"a latent from 0 to {fires.shape[1] - 1}",
                    found=str(latent),
                    fix="choose a latent of this dictionary",
                )
            rows = np.flatnonzero(fires[:, latent].cpu().numpy())
            if not len(rows):
                continue
            before: list[Tensor] = []
            after: list[Tensor] = []
            self._run(what, rows, output=partial(_remember, before))
            embedded = self._run(what, rows, acts=partial(_silence, latent), output=partial(_remember, after))
            lost = torch.cat(before) - torch.cat(after)
            out[what] = self._with(what, rows, embedded)
            taken[what] = _Taken(rows, lost.norm(dim=-1), lost.shape[-1])
        return out, taken

    def along_random(self, taken: dict[str, _Taken], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the embeddings with the same norms subtracted along a random direction per tower."""
        out = dict(self.clean)
        drawn: dict[Modality, Tensor] = {}
        for what, lost in taken.items():
            side = _modality(what)
            if side not in drawn:
                direction = torch.randn(lost.width, generator=generator, dtype=torch.float64)
                drawn[side] = direction / direction.norm()
            sizes = iter(lost.size.split(self._batch))
            hook = partial(_less, sizes, drawn[side])
            out[what] = self._with(what, lost.rows, self._run(what, lost.rows, output=hook))
        return out

    def _run(self, what: str, rows: np.ndarray, *, acts: Any = None, output: Any = None) -> Tensor:
        place = self._places.get(_modality(what))
        hooks = [(f"{place}.{name}", hook) for name, hook in ((_ACTS, acts), (_OUTPUT, output)) if hook and place]
        encode = self._clip.encode_image if what == "image" else self._clip.encode_text
        with self._clip.hooks(fwd_hooks=hooks):
            embedded = torch.cat([encode(x, normalize=True).flatten(1).double() for x in self._cut(what, rows)])
        return torch.nn.functional.normalize(embedded)  # an edit of the final embedding changes its length too

    def _with(self, what: str, rows: np.ndarray, embedded: Tensor) -> Tensor:
        changed = self.clean[what].clone()
        changed[torch.as_tensor(rows, device=changed.device)] = embedded
        return changed

    def _cut(self, what: str, rows: np.ndarray) -> Iterator[Tensor]:
        given = self._given[what]
        for start in range(0, len(rows), self._batch):
            yield given[torch.as_tensor(rows[start : start + self._batch])].to(self._clip.device)


@dataclass(frozen=True)
class _Measured:
    """Measures matching and zero-shot classification before and after an ablation."""

    clean: dict[str, Tensor]
    labels: Int[Tensor, " image"] | None
    scale: float
    others: Bool[Tensor, "pair pair"]
    """Other correct captions of each image: those of pairs with equal images or equal tokens."""

    def effects(self, changed: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """Return the changes in nats by measure ("matching", "zero_shot") and tower ("image", "text", "both")."""
        towers = {"image": {"image"}, "text": {"text", "prompt"}, "both": {"image", "text", "prompt"}}
        before = self._log_probabilities(self.clean)
        out: dict[str, dict[str, float]] = {what: {} for what in before}
        for tower, theirs in towers.items():
            after = self._log_probabilities({w: (changed if w in theirs else self.clean)[w] for w in self.clean})
            for what, value in after.items():
                out[what][tower] = value - before[what]
        return out

    def _log_probabilities(self, embedded: dict[str, Tensor]) -> dict[str, float]:
        out = {"matching": pair_log_probability(embedded["image"], embedded["text"], self.scale, self.others)}
        if self.labels is not None:
            of_class = (self.scale * embedded["image"] @ embedded["prompt"].T).log_softmax(1)
            own = of_class.gather(1, self.labels.to(of_class.device).long()[:, None])
            out["zero_shot"] = float(own.mean())
        return out


def _places(clip: HookedCLIP) -> dict[Modality, str]:
    places: dict[Modality, str] = {}
    for name in clip.splices:
        side = MODALITY_OF[name.partition(".")[0]]  # type: ignore[index]
        if side in places:
            raise InputError(
                expected="at most one dictionary per tower",
                found=f"{places[side]} and {name}",
                fix="ablate with one of them at a time",
            )
        places[side] = name
    return places


def _modality(what: str) -> Modality:
    return "image" if what == "image" else "text"


def _remember_firing(seen: list[Tensor], acts: Tensor, hook: Any) -> None:
    seen.append((acts != 0).flatten(1, -2).any(1))


def _remember(seen: list[Tensor], output: Tensor, hook: Any) -> None:
    seen.append(output.flatten(2).double())


def _silence(latent: int, acts: Tensor, hook: Any) -> Tensor:
    silenced = acts.clone()
    silenced[..., latent] = 0
    return silenced


def _less(sizes: Iterator[Tensor], direction: Tensor, output: Tensor, hook: Any) -> Tensor:
    lost = next(sizes)[..., None] * direction.to(output.device)
    return output - lost.reshape(output.shape).to(output.dtype)
