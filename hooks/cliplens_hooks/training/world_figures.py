"""Evaluate an embedded model on its world: retrieval, caption swaps, probes, variance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from cliplens.world import FACTORS, SHARED, Scenes, captions, draw_scenes, render
from cliplens_hooks.models.world import pixels_to_tensor

_Embeddings = Float[Tensor, "scene d_embed"]
_BATCH = 256


@dataclass(frozen=True)
class Embedded:
    """Scenes with their unit-norm image and text embeddings."""

    scenes: Scenes
    image: _Embeddings
    text: _Embeddings


def embed(model: CLIP, tokenizer: SimpleTokenizer, scenes: Scenes) -> Embedded:
    """Embed the scenes with both towers; embeddings have norm 1."""
    image = torch.cat([embed_images(model, part) for part in _parts(scenes)])
    text = torch.cat([embed_captions(model, tokenizer, captions(part)) for part in _parts(scenes)])
    return Embedded(scenes, image, text)


@torch.no_grad()
def embed_images(model: CLIP, scenes: Scenes) -> _Embeddings:
    """Return unit-norm embeddings of the pictures of the scenes."""
    return model.encode_image(pixels_to_tensor(render(scenes)), normalize=True)


@torch.no_grad()
def embed_captions(model: CLIP, tokenizer: SimpleTokenizer, texts: Sequence[str]) -> _Embeddings:
    """Return unit-norm embeddings of captions."""
    return model.encode_text(tokenizer(list(texts)), normalize=True)


def distinct_scenes(n: int, *, seed: int) -> Scenes:
    """Return scenes that differ pairwise in a shared factor, so that each caption has one correct picture."""
    scenes = draw_scenes(4 * n, seed=seed)
    combinations = np.stack([scenes[name] for name in SHARED], axis=1)
    first = np.sort(np.unique(combinations, axis=0, return_index=True)[1])
    return scenes.rows(first[:n])


def retrieval(embedded: Embedded) -> tuple[float, float]:
    """Return R@1, image to text and text to image, each in [0, 1]."""
    similarity = embedded.image @ embedded.text.T
    right = torch.arange(len(similarity))
    return tuple((similarity.argmax(dim) == right).double().mean().item() for dim in (1, 0))  # type: ignore[return-value]


def swap_accuracy(
    model: CLIP, tokenizer: SimpleTokenizer, scenes: Scenes, names: Sequence[str] = SHARED
) -> dict[str, float]:
    """Return, by factor, how often the correct caption scores above all copies with only this factor changed."""
    image = torch.cat([embed_images(model, part) for part in _parts(scenes)])
    found = {}
    for name in names:
        options = [
            torch.cat(
                [embed_captions(model, tokenizer, captions(part)) for part in _parts(scenes.replaced(**{name: value}))]
            )
            for value in range(len(FACTORS[name].values))
        ]
        similarity = torch.stack([(image * text).sum(dim=1) for text in options], dim=1)
        found[name] = (similarity.argmax(dim=1).numpy() == scenes[name]).mean().item()
    return found


def probe_accuracy(
    embeddings: _Embeddings, factors: Mapping[str, Int[np.ndarray, " scene"]], *, train: int
) -> dict[str, float]:
    """Return, by factor, the accuracy of a logistic probe trained on the first `train` rows, on the other rows."""
    centred = (embeddings - embeddings[:train].mean(dim=0)) / embeddings[:train].std()
    return {name: _probe(centred, torch.from_numpy(values), train) for name, values in factors.items()}


def _probe(inputs: _Embeddings, target: Int[Tensor, " scene"], train: int) -> float:
    probe = nn.Linear(inputs.shape[1], int(target.max()) + 1)
    nn.init.zeros_(probe.weight)
    optimiser = torch.optim.LBFGS(probe.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(probe(inputs[:train]), target[:train]) + 1e-4 * probe.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        return (probe(inputs[train:]).argmax(dim=1) == target[train:]).double().mean().item()


def variance_shares(embeddings: _Embeddings, scenes: Scenes) -> dict[str, float]:
    """Return, by factor, the share of the variance of the embeddings between the means of its values.

    Factors are independent, so their shares add up.
    """
    rows = embeddings.double() - embeddings.double().mean(dim=0)
    total = rows.square().sum()
    shares = {}
    for name in FACTORS:
        values = torch.from_numpy(scenes[name])
        groups = [rows[values == value] for value in values.unique()]
        between = sum(len(group) * group.mean(dim=0).square().sum() for group in groups)
        shares[name] = float(between / total)
    return shares


def gap(embedded: Embedded) -> float:
    """Return the distance between the mean image embedding and the mean text embedding."""
    return float((embedded.image.mean(dim=0) - embedded.text.mean(dim=0)).norm())


def _parts(scenes: Scenes) -> Iterator[Scenes]:
    for start in range(0, len(scenes), _BATCH):
        yield scenes.rows(slice(start, start + _BATCH))
