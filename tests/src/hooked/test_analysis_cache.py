"""TransformerLens' analysis on both towers: what it says adds up to the stream and to the output."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens import patching

import cliplens
from cliplens.errors import InputError, MismatchError, NonFiniteError, UnknownNameError
from cliplens.hooked import HookedCLIP, HookedTower
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

BLOCK = {"block_type": "custom", "scale_attn": True, "scale_heads": True, "scale_attn_inner": True, "qk_norm": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "behind ln_pre": {},
    "no ln_pre": {"vision": {"no_ln_pre": True}},
    "layer scale": {"vision": {"ls_init_value": 0.3}, "text": {"ls_init_value": 0.3}},
    "average": {"vision": {"pool_type": "avg"}},
    "norm after average": {"vision": {"pool_type": "avg", "final_ln_after_pool": True}},
    "coca": {"kind": "coca"},
}
CAPTIONS = ["one", "two", "three"]


def double(**options: Any) -> HookedCLIP:
    return cliplens.wrap(tiny_model(**options).double(), tokenizer=TinyTokenizer())


def ran(clip: HookedCLIP, side: str) -> tuple[HookedTower, Tensor, Any]:
    tower = clip.towers[side]
    inputs = tiny_images().double() if side == "vision" else tiny_tokens()
    with torch.no_grad():
        return tower, inputs, tower.run_with_cache(inputs)[1]


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", ["vision", "text"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_decompositions_sum_to_the_stream(variant: str, side: str) -> None:
    _, _, cache = ran(double(**VARIANTS[variant]), side)
    for layer, stream in [(3, cache["resid_post", 2]), (2, cache["resid_pre", 2]), (1, cache["resid_post", 0])]:
        close(cache.decompose_resid(layer).sum(0), stream)
        close(cache.get_full_resid_decomposition(layer, expand_neurons=True).sum(0), stream)
        close(cache.get_full_resid_decomposition(layer, expand_neurons=False).sum(0), stream)
        close(cache.stack_head_results(layer, incl_remainder=True).sum(0), stream)
    close(cache.decompose_resid(1, mlp_input=True).sum(0), cache["resid_mid", 1])
    streams, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert labels[0] == "0_pre"
    close(streams[-1], cache["resid_post", -1])


@pytest.mark.parametrize("side", ["vision", "text"])
@torch.no_grad()
def test_head_results_from_z_equal_hook_result(side: str) -> None:
    tower, inputs, cache = ran(double(), side)
    _, whole = tower.run_with_cache(inputs, names_filter=lambda name: name.endswith("hook_result"))
    cache.compute_head_results()
    for layer in range(3):
        close(cache["result", layer], whole["result", layer])


@torch.no_grad()
def test_the_final_norm_applies_to_the_stack() -> None:
    _, _, cache = ran(double(), "vision")
    normed = cache.apply_ln_to_stack(cache.decompose_resid())
    close(normed.sum(0), cache["ln_final.hook_normalized"])
    _, _, cache = ran(double(kind="coca"), "vision")
    with pytest.raises(InputError, match="final norm"):
        cache.apply_ln_to_stack(cache.decompose_resid())


@torch.no_grad()
def test_heads_behind_a_norm_are_refused() -> None:
    tower, _, cache = ran(double(), "vision")
    tower.blocks[1].__dict__["after_attn"] = torch.tanh
    for call in (cache.stack_head_results, cache.get_full_resid_decomposition):
        with pytest.raises(InputError, match="norm in between"):
            call()


@pytest.mark.parametrize("variant", ["behind ln_pre", "no ln_pre", "layer scale"])
@torch.no_grad()
def test_logit_attributions_sum_to_the_product_with_the_concept(variant: str) -> None:
    clip = double(**VARIANTS[variant])
    clip.set_text_bank(CAPTIONS)
    tower, images, cache = ran(clip, "vision")
    ids = torch.tensor([0, 2, 1, 1])
    exact = (tower(images) * tower.bank.embeddings[ids]).sum(-1)
    stack = cache.decompose_resid()
    close(cache.logit_attrs(stack, ids)[:, :, 0].sum(0) + tower.bank_offset(ids), exact)
    close(cache.logit_attrs(stack[:, :, 0], ids, pos_slice=0).sum(0) + tower.bank_offset(ids), exact)
    heads = cache.get_full_resid_decomposition(expand_neurons=True)
    close(cache.logit_attrs(heads, ids)[:, :, 0].sum(0) + tower.bank_offset(ids), exact)
    difference = cache.logit_attrs(stack, "two", "three")[:, :, 0].sum(0)
    close(
        difference + tower.bank_offset("two") - tower.bank_offset("three"),
        tower(images) @ (tower.bank.embeddings[1] - tower.bank.embeddings[2]),
    )


@torch.no_grad()
def test_averaging_towers_attribute_to_the_average() -> None:
    clip = double(vision={"pool_type": "avg"})
    clip.set_text_bank(CAPTIONS)
    tower, images, cache = ran(clip, "vision")
    attributions = cache.logit_attrs(cache.decompose_resid(), 1).sum(0)[:, 1:].mean(-1)
    close(attributions + tower.bank_offset(1), tower(images) @ tower.bank.embeddings[1])


@torch.no_grad()
def test_a_bank_of_images_works_on_the_text_tower() -> None:
    clip = double()
    clip.text.set_bank(clip.vision(tiny_images(6).double()))
    tower, tokens, cache = ran(clip, "text")
    rows = torch.arange(4)
    attributions = cache.logit_attrs(cache.decompose_resid(), 5)[:, rows, tower.special_position(tokens)]
    close(attributions.sum(0) + tower.bank_offset(5), tower(tokens) @ tower.bank.embeddings[5])


@torch.no_grad()
def test_directions_of_a_bank_need_a_linear_head() -> None:
    clip = double(kind="coca")
    clip.set_text_bank(CAPTIONS)
    with pytest.raises(InputError, match="one position or the mean"):
        clip.vision.tokens_to_residual_directions(0)
    clip = double()
    with pytest.raises(InputError, match="set_text_bank"):
        clip.vision(tiny_images().double(), return_type="both")
    with pytest.raises(MismatchError, match="concept, 32"):
        clip.vision.set_bank(torch.randn(3, 31))
    clip.set_text_bank(CAPTIONS)
    with pytest.raises(UnknownNameError, match="two"):
        clip.vision.to_single_token("twoo")
    with pytest.raises(InputError, match="logits, loss, both"):
        clip.vision(tiny_images().double(), return_type="tokens")


@torch.no_grad()
def test_logits_over_the_bank_are_the_joint_models() -> None:
    clip = double(kind="custom", init_logit_bias=-3.0)
    clip.set_text_bank(CAPTIONS, labels=lambda images: torch.tensor([0, 1, 2, 0]))
    images = tiny_images().double()
    expected = clip(images, TinyTokenizer()(CAPTIONS))
    logits, loss = clip.vision(images, return_type="both", loss_per_token=True)
    assert logits.shape == (4, 5, 3)
    torch.testing.assert_close(logits[:, 2], expected, rtol=1e-6, atol=1e-6)
    slow = -expected.log_softmax(-1)[range(4), [0, 1, 2, 0]]
    torch.testing.assert_close(loss[:, 4], slow, rtol=1e-6, atol=1e-6)
    assert float(clip.vision(images, return_type="loss")) == pytest.approx(float(slow.mean()))


def with_source(clip: HookedCLIP, images: Tensor) -> Tensor:
    clip.vision.image_source = lambda numbers: images[numbers]
    return clip.vision.image_tokens(torch.arange(len(images)))


@pytest.mark.parametrize("side", ["vision", "text"])
@torch.no_grad()
def test_patching_by_transformer_lens_is_patching_by_hand(side: str) -> None:
    clip = double()
    tower = clip.towers[side]
    images, tokens = tiny_images(2).double(), tiny_tokens(2)
    inputs = with_source(clip, images) if side == "vision" else tokens
    clean, corrupted = inputs[:1], inputs[1:]
    target = tower(clean)[0]
    _, cache = tower.run_with_cache(clean)

    def metric(output: Tensor) -> Tensor:
        return output[0] @ target

    def by_hand(name: str, *place: Any) -> Tensor:
        def patch(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            x[place] = cache[name][place]
            return x

        return metric(tower.run_with_hooks(corrupted, fwd_hooks=[(name, patch)]))

    everywhere = slice(None)
    streams = patching.get_act_patch_resid_pre(tower, corrupted, cache, metric)
    assert streams.shape == (3, inputs.shape[1])
    assert float(streams[2, 1]) == pytest.approx(float(by_hand("blocks.2.hook_resid_pre", everywhere, 1)), rel=1e-5)
    heads = patching.get_act_patch_attn_head_out_all_pos(tower, corrupted, cache, metric)
    assert float(heads[1, 2]) == pytest.approx(
        float(by_hand("blocks.1.attn.hook_z", everywhere, everywhere, 2)), rel=1e-5
    )
    patterns = patching.get_act_patch_attn_head_pattern_all_pos(tower, corrupted, cache, metric)
    assert float(patterns[0, 1]) == pytest.approx(float(by_hand("blocks.0.attn.hook_pattern", everywhere, 1)), rel=1e-5)
    outputs = patching.get_act_patch_mlp_out(tower, corrupted, cache, metric)
    assert float(outputs[2, 0]) == pytest.approx(float(by_hand("blocks.2.hook_mlp_out", everywhere, 0)), rel=1e-5)


def test_a_bank_needs_a_list_of_captions_and_finite_embeddings(clip: HookedCLIP) -> None:
    for captions in ("red", []):
        with pytest.raises(InputError, match="a list of captions, one per class"):
            clip.set_text_bank(captions)
    rows = torch.ones(2, clip.vision.cfg.d_embed)
    rows[1, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="embeddings of the concepts"):
        clip.vision.set_bank(rows)
