"""Attributions on models of all families: exact where the blocks are open, refused where they are closed."""

import pytest
import torch

import cliplens
from cliplens.analysis import attribute_heads
from cliplens.errors import InputError
from support.families import reduced_inputs, reduced_model

OPEN = {
    "ViT-B-16-SigLIP": "attention pooler with an MLP",
    "PE-Core-B-16": "rotary positions, class token and attention pooler",
    "EVA02-B-16": "rotary positions, gated MLP, inner norm",
    "EVA02-E-14": "norms behind the branches",
    "ViTamin-S": "convolutions before the blocks, average pooling",
    "coca_ViT-B-32": "pooling by queries, appended class token",
}
CLOSED = {"RN50": ("vision", "stages"), "roberta-ViT-B-32": ("text", "blocks")}


def sides(name: str) -> list[tuple]:
    clip = cliplens.wrap(reduced_model(name).double())
    images, tokens = reduced_inputs(name)
    images = images.double()
    with torch.no_grad():
        seen, read = clip.vision.encode(images)[1], clip.text.encode(tokens)[1]
    return [(clip.vision, images, read, seen), (clip.text, tokens, seen, read)]


@pytest.mark.parametrize("name", OPEN)
def test_heads_sum_to_the_similarity(name: str) -> None:
    for tower, inputs, towards, own in sides(name):
        found = attribute_heads(tower, inputs, towards)
        torch.testing.assert_close(found.total, (own * towards).sum(-1), rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            _, cache = tower.run_with_cache(inputs)
        stream = cache["resid_post", tower.cfg.n_layers - 1]
        torch.testing.assert_close(cache.decompose_resid().sum(0), stream, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_towers_say_so(name: str) -> None:
    side, level = CLOSED[name]
    tower, inputs, towards, _ = next(s for s in sides(name) if s[0].cfg.side == side)
    with torch.no_grad():
        _, cache = tower.run_with_cache(inputs)
    for call in (lambda: attribute_heads(tower, inputs, towards), cache.decompose_resid, cache.stack_head_results):
        with pytest.raises(InputError, match=f"hooked at its {level}"):
            call()
