"""The data of a study of bias: embeddings of labelled images, prompts, and pairs that show the cost of a change."""

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
    """Sentences that name each target class. Sentence j is the same for all classes except for the class."""
    group: Float[Tensor, "group prompt d"]
    """Prompts that name each group. Prompt j is the same for all groups except for the group."""
    neutral: Float[Tensor, "neutral d"]
    """Sentences that mention neither group nor target."""
    queries: Float[Tensor, "query query_sentence d"] | None = None
    """Sentences to rank images by, for the skew; None takes those of the targets."""

    @property
    def group_pairs(self) -> Float[Tensor, "pair 2 d"]:
        """Pairs of prompts that differ only in the group."""
        groups = len(self.group)
        return torch.cat([self.group[[i, j]].transpose(0, 1) for i in range(groups) for j in range(i)])


@dataclass(frozen=True, eq=False)
class Utility:
    """Data unrelated to the attribute: they show whether a method damages other uses of the embeddings."""

    image: Float[Tensor, "pair d"]
    text: Float[Tensor, "pair d"]
    labels: Int[np.ndarray, " image"] | None = None
    """A label of the images under study that is unrelated to group and target."""
    sentences: Float[Tensor, "class sentence d"] | None = None
    """Sentences that name each value of this label."""


@dataclass(frozen=True, eq=False)
class BiasData:
    """Embeddings of images, each with a group and a target. Methods are fitted on `train` and tested on the others."""

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
                        fix="pass more images, or leave out that value",
                    )

    @property
    def test(self) -> Bool[np.ndarray, " image"]:
        """Mask of the test images."""
        return ~self.train
