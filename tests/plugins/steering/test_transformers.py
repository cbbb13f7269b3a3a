"""Steering real transformers classes, tiny and random: CLIP encoders and a LLaVA-type model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cliplens import edits as ed
from cliplens.errors import NoEffectError, UnknownNameError
from cliplens_plugins import steering as s
from support import tiny_pipelines as tiny
from support.tiny_dictionaries import tiny_dictionary

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def llava() -> Any:
    return tiny.llava()


@pytest.fixture(scope="module")
def encoder() -> Any:
    torch.manual_seed(0)
    return tiny.image_encoder()


def steering(hook: str, dose: float = 1.0, **edit: Any) -> ed.LatentSteering:
    width = tiny.EMBED if hook in ("hook_projected", "hook_embedding") else tiny.WIDTH
    return ed.LatentSteering(
        tiny_dictionary(width, 64, sites=(f"vision.{hook}",)), [ed.add([5], 4.0, **edit)], dose=dose
    )


def pixels(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_an_edit_in_the_vision_tower_changes_the_answers_logits(llava: Any) -> None:
    inputs = tiny.llava_inputs()
    stock = llava(**inputs).logits
    one = steering("blocks.1.hook_resid_post")
    for _ in range(
        2
    ):  # LLaVA reads hidden_states[-2], this very layer; the second call finds its recording hooks there
        with s.steer(llava, one):
            steered = llava(**inputs).logits
        assert (steered - stock)[:, -1].abs().max() > 1e-4
        with s.steer(llava, one.at_dose(0.0)):
            assert torch.equal(llava(**inputs).logits, stock)
        assert torch.equal(llava(**inputs).logits, stock)
    tower = llava.model.vision_tower
    states = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
    with s.steer(tower, one):
        edited = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(edited, one(states, "image"), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_block_past_the_layer_it_reads_is_refused(llava: Any) -> None:
    with (
        pytest.raises(NoEffectError, match=r"blocks\.2\.hook_resid_post.*vision\.blocks\.1\.hook_resid_post"),
        s.steer(llava, steering("blocks.2.hook_resid_post")),
    ):
        llava(**tiny.llava_inputs())


def by_hand(encoder: Any, x: Tensor, hook: str, edit: Any) -> Tensor:
    """The image encoder written out with an edit at layer 1."""
    inner = encoder.vision_model
    stream = inner.pre_layrnorm(inner.embeddings(x))
    for n, layer in enumerate(inner.encoder.layers):
        here = n == 1
        stream = edit(stream) if here and hook == "hook_resid_pre" else stream
        attn = layer.self_attn(layer.layer_norm1(stream), attention_mask=None)[0]
        attn = edit(attn) if here and hook == "hook_attn_out" else attn
        stream = stream + attn
        stream = edit(stream) if here and hook == "hook_resid_mid" else stream
        mlp = layer.mlp(layer.layer_norm2(stream))
        mlp = edit(mlp) if here and hook == "hook_mlp_out" else mlp
        stream = stream + mlp
        stream = edit(stream) if here and hook == "hook_resid_post" else stream
    projected: Tensor = encoder.visual_projection(inner.post_layernorm(stream[:, 0]))
    return projected


@torch.no_grad()
@pytest.mark.parametrize(
    "hook", ["hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post"]
)
def test_writes_at_every_site_are_true_edits(encoder: Any, hook: str) -> None:
    one = steering(f"blocks.1.{hook}")
    with s.steer(encoder, one):
        found = encoder(pixels()).image_embeds
    torch.testing.assert_close(found, by_hand(encoder, pixels(), hook, lambda x: one(x, "image")), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        encoder(pixels()).image_embeds, by_hand(encoder, pixels(), "", None), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("hook", ["hook_pooled", "hook_projected", "hook_embedding"])
def test_sites_after_the_blocks(encoder: Any, hook: str) -> None:
    one = steering(hook)
    stock = encoder(pixels()).image_embeds
    with s.steer(encoder, one):
        found = encoder(pixels()).image_embeds
    delta = 4.0 * one.dictionary.decoder[5]
    if hook == "hook_pooled":
        delta = encoder.visual_projection(delta)
    elif hook == "hook_embedding":
        delta = delta * stock.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found - stock, delta.expand_as(stock), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_only_the_class_token_or_only_the_patches(encoder: Any) -> None:
    for positions, moved in (("special", [True] + [False] * 16), ("others", [False] + [True] * 16)):
        with s.steer(encoder, steering("blocks.1.hook_resid_post", positions=positions)):
            after = encoder(pixels(), output_hidden_states=True).hidden_states[2]
        before = encoder(pixels(), output_hidden_states=True).hidden_states[2]
        assert (after != before).any(-1).all(0).tolist() == moved


@torch.no_grad()
def test_a_text_encoder_knows_where_its_captions_end() -> None:
    from transformers import CLIPTextModel

    tokenizer = tiny.tiny_tokenizer()
    model = CLIPTextModel(tiny.text_config(tokenizer)).eval()
    ids = tokenizer(["a ring", "a red ring"], padding="max_length", return_tensors="pt").input_ids
    dictionary = tiny_dictionary(tiny.WIDTH, 64, sites=("text.blocks.0.hook_resid_post",))
    with s.steer(model, ed.LatentSteering(dictionary, [ed.add([5], 4.0, positions="special")])):
        after = model(ids, output_hidden_states=True).hidden_states[1]
    moved = (after != model(ids, output_hidden_states=True).hidden_states[1]).any(-1)
    assert moved.int().argmax(1).tolist() == (ids == tokenizer.eos_token_id).int().argmax(1).tolist()
    assert bool((moved.sum(1) == 1).all())


def test_unknown_sites_are_refused_with_the_nearest(encoder: Any) -> None:
    with (
        pytest.raises(UnknownNameError, match=r"blocks\.1\.hook_resid_post"),
        s.steer(encoder, steering("blocks.11.hook_resid_post")),
    ):
        pass
