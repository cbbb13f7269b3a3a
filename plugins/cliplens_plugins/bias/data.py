"""What a study of bias looks at: embeddings of labelled images, prompts, and pairs to measure utility on."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.errors import InputError


@dataclass(frozen=True, eq=False)
class Prompts:
    """Unit-norm embeddings of sentences."""

    target: Float[Tensor, "target sentence d"]
    """Sentences of each target class, in contexts that all classes share."""
    group: Float[Tensor, "group prompt d"]
    """Prompts that name each group, in contexts that all groups share: prompt j of all groups differs in the group."""
    neutral: Float[Tensor, "neutral d"]
    """Sentences that say nothing of group or target."""
    queries: Float[Tensor, "query query_sentence d"] | None = None
    """Sentences that images are ranked by for skew; None: those of the targets."""

    @property
    def group_pairs(self) -> Float[Tensor, "pair 2 d"]:
        """Pairs of prompts that are equal but for the group."""
        groups = len(self.group)
        return torch.cat([self.group[[i, j]].transpose(0, 1) for i in range(groups) for j in range(i)])


@dataclass(frozen=True, eq=False)
class Utility:
    """Pairs and a class that have nothing to do with the attribute."""

    image: Float[Tensor, "pair d"]
    text: Float[Tensor, "pair d"]
    labels: Int[np.ndarray, " image"] | None = None
    """A class of the images under study that is unrelated to group and target."""
    sentences: Float[Tensor, "class sentence d"] | None = None


@dataclass(frozen=True, eq=False)
class BiasData:
    """Embeddings of images with a group and a target each. Methods are fitted on `train` and tested on the rest."""

    image: Float[Tensor, "image d"]
    group: Int[np.ndarray, " image"]
    target: Int[np.ndarray, " image"]
    train: Bool[np.ndarray, " image"]
    group_names: tuple[str, ...]
    target_names: tuple[str, ...]
    prompts: Prompts
    utility: Utility | None = None

    def __post_init__(self) -> None:
        both = (("group", self.group, self.group_names), ("target", self.target, self.target_names))
        for what, values, names in both:
            for part, here in (("train", self.train), ("test", ~self.train)):
                missing = sorted(set(range(len(names))) - set(values[here].tolist()))
                if missing or len(names) < 2:
                    raise InputError(
                        expected=f"at least two values of the {what}, each in some {part} image",
                        found=f"none of {names[missing[0]]!r}" if missing else f"{len(names)} value",
                        fix="give more images, or leave that value out",
                    )

    @property
    def test(self) -> Bool[np.ndarray, " image"]:
        """The images that figures are taken on."""
        return ~self.train
