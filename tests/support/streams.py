"""Planted activations of two modalities, and a provider over them that can be put aside and taken up again."""

import torch
from torch import Tensor

from cliplens.records import ModelIdentity, PairedActs, Provenance

IDENTITY = ModelIdentity("tiny", None, "a" * 64, "resize 48, bicubic", "b" * 64, "c" * 64)


def provenance(d_in: int, *, centred: bool = True, hook: str = "hook_embedding") -> Provenance:
    return Provenance(IDENTITY, (f"vision.{hook}", f"text.{hook}"), d_in, "auto", centred)


def planted(rows: int, d_in: int, n_features: int = 48, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and captions of sparse non-negative features: a third shared, a third of each alone, means far apart."""
    draw = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=draw), dim=-1)
    gap = torch.randn(2, d_in, generator=draw)
    third = n_features // 3

    def codes(columns: slice) -> Tensor:
        fires = torch.rand(rows, n_features, generator=draw) < 0.12
        size = 0.5 + torch.rand(rows, n_features, generator=draw)
        out = torch.zeros(rows, n_features)
        out[:, columns] = (fires * size)[:, columns]
        return out

    shared = codes(slice(0, third))
    image = (shared + codes(slice(third, 2 * third))) @ directions
    text = (shared + codes(slice(2 * third, n_features))) @ directions
    return image + gap[0], text + gap[1]


def paired(rows: int, d_in: int, seed: int = 0) -> PairedActs:
    image, text = planted(rows, d_in, seed=seed)
    return PairedActs(tuple(f"p{i:05d}" for i in range(rows)), image, text)


class Provider:
    """Shuffled rows of both modalities, centred, for ever; its state is its generator's."""

    def __init__(self, acts: PairedActs, batch_size: int = 128, seed: int = 0, centre: bool = True) -> None:
        assert acts.image is not None
        assert acts.text is not None
        self.means = {"image": acts.image.mean(0), "text": acts.text.mean(0)} if centre else None
        image = acts.image - self.means["image"] if self.means else acts.image
        text = acts.text - self.means["text"] if self.means else acts.text
        self.rows = torch.cat([image, text])
        self.batch_size, self.d_in = batch_size, image.shape[1]
        self.provenance = provenance(self.d_in, centred=centre)
        self.draw = torch.Generator().manual_seed(seed)
        self.given = 0

    def __iter__(self) -> "Provider":
        return self

    def __next__(self) -> Tensor:
        self.given += 1
        return self.rows[torch.randint(len(self.rows), (self.batch_size,), generator=self.draw)]

    def state_dict(self) -> dict[str, object]:
        return {"generator": self.draw.get_state(), "given": self.given}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.draw.set_state(state["generator"])
        self.given = state["given"]


class Pairs(Provider):
    """Whole pairs, images first."""

    paired = True

    def __next__(self) -> Tensor:
        self.given += 1
        n = len(self.rows) // 2
        picked = torch.randint(n, (self.batch_size // 2,), generator=self.draw)
        return torch.cat([self.rows[picked], self.rows[n + picked]])
