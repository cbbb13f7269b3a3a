"""Define the base class of objects that rewrite activations, and the positions to which an edit applies."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cliplens.errors import MismatchError
from cliplens.sites import Modality, Site


class Steering(ABC):
    """Base class of steerings: functions that take activations and return changed ones.

    The activations may come from CLIP, from a text encoder inside a generator, or be final embeddings.
    """

    @property
    @abstractmethod
    def d_in(self) -> int:
        """Return the width of the activations to rewrite."""

    @property
    @abstractmethod
    def sites(self) -> tuple[Site, ...]:
        """Return the sites to steer; empty if unknown."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Return whether it changes nothing; then no hook is attached and outputs are bit-identical."""

    @abstractmethod
    def __call__(
        self, acts: Float[Tensor, "batch pos d_in"], modality: Modality, special: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch pos d_in"]:
        """Return new activations with the dtype and device of the given ones.

        Args:
            acts: raw activations, as the model computes them.
            modality: modality of the activations, which selects the dictionary's mean and decoder.
            special: position of CLS or EOT in each sample; None if there is none.
        """

    def rows(self, acts: Float[Tensor, "row d_in"], modality: Modality) -> Float[Tensor, "row d_in"]:
        """Rewrite rows of embeddings, which have no position axis."""
        return self(acts[:, None], modality)[:, 0]


def positions_mask(
    positions: str | Sequence[int], batch: int, length: int, special: Int[Tensor, " batch"] | None
) -> Bool[Tensor, "batch pos"] | None:
    """Return a mask of the positions to which an edit applies; None means all.

    "special" is CLS or EOT, "others" all else. "content" is the words of a caption, between the start token and EOT, or
    the patches of a picture.

    >>> positions_mask([0, -1], 1, 3, None)
    tensor([[ True, False,  True]])
    >>> positions_mask("content", 1, 5, torch.tensor([3]))
    tensor([[False,  True,  True, False, False]])

    Raises:
        MismatchError: the position of CLS or EOT is required but unknown, or a position is out of range.
    """
    if positions == "all":
        return None
    indices = torch.arange(length)
    if isinstance(positions, str):
        if special is None:
            raise MismatchError(
                expected="activations with a known CLS or EOT position",
                found=f"{length} position(s) without one",
                fix="use positions='all', or pass a list of positions",
            )
        ends = special.cpu()[:, None]
        is_special = indices[None, :] == ends
        if positions == "content":
            return (indices > 0) & ((indices < ends) | (ends == 0))  # CLS comes first, so its position is 0
        return is_special if positions == "special" else ~is_special
    outside = [p for p in positions if not -length <= p < length]
    if outside:
        raise MismatchError(
            expected=f"positions from 0 to {length - 1}",
            found=f"position {outside[0]}",
            fix="pass positions within the sequence",
        )
    mask = torch.zeros(length, dtype=torch.bool)
    mask[list(positions)] = True
    return mask.expand(batch, length)
