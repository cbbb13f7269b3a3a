"""Attribution and splicing on models of all families: exact where blocks are open, refused where they are closed."""

import pytest
import torch
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

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
def test_towers_without_hooks_inside_blocks_raise_an_error(name: str) -> None:
    side, level = CLOSED[name]
    tower, inputs, towards, _ = next(s for s in sides(name) if s[0].cfg.side == side)
    with torch.no_grad():
        _, cache = tower.run_with_cache(inputs)
    for call in (lambda: attribute_heads(tower, inputs, towards), cache.decompose_resid, cache.stack_head_results):
        with pytest.raises(InputError, match=f"hooked at its {level}"):
            call()


@pytest.mark.parametrize("name", [*CLOSED, "ViT-B-16-SigLIP", "EVA02-E-14"])
@torch.no_grad()
def test_dictionaries_splice_into_every_kind_of_tower(name: str) -> None:
    for tower, inputs, _, _ in sides(name):
        hook = "stages.1.hook_out" if tower.level == "stages" else "blocks.0.hook_resid_post"
        config = StandardSAEConfig(
            d_in=tower.width(hook), d_sae=40, dtype="float64", metadata=SAEMetadata(hook_name=hook)
        )
        sae = StandardSAE(config)
        by_hand = tower.run_with_hooks(inputs, fwd_hooks=[(hook, lambda x, hook, sae=sae: sae(x))])
        torch.testing.assert_close(tower.run_with_saes(inputs, saes=sae), by_hand, rtol=1e-9, atol=1e-9)
        kept = tower.run_with_saes(inputs, saes=sae, use_error_term=True)
        torch.testing.assert_close(kept, tower(inputs), rtol=1e-9, atol=1e-9)
        assert (by_hand - kept).norm() > 1e-3 * kept.norm()
