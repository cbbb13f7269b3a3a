"""Weights under TransformerLens' names are those of the stock model, and give what the model computes."""

from typing import Any

import pytest
import torch
from torch import Tensor

import cliplens
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP, HookedTower
from support.families import reduced_inputs, reduced_model
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

OPEN = {"plain": {}, "layer scale": {"vision": {"ls_init_value": 0.3}, "text": {"ls_init_value": 0.3}}}
FAMILIES = ["EVA02-B-16", "ViT-B-16-SigLIP-i18n-256", "roberta-ViT-B-32", "ViT-B-32-quickgelu"]


def towers() -> dict[str, tuple[HookedTower, Tensor]]:
    found = {}
    for name, options in OPEN.items():
        clip = double(**options)
        found[f"{name}, vision"] = clip.vision, tiny_images().double()
        found[f"{name}, text"] = clip.text, tiny_tokens()
    for name in FAMILIES:
        clip = cliplens.wrap(reduced_model(name).double())
        images, tokens = reduced_inputs(name)
        found[f"{name}, vision"], found[f"{name}, text"] = (clip.vision, images.double()), (clip.text, tokens)
    return found


def double(**options: Any) -> HookedCLIP:
    return cliplens.wrap(tiny_model(**options).double(), tokenizer=TinyTokenizer())


@pytest.fixture(scope="module")
def every() -> dict[str, tuple[HookedTower, Tensor]]:
    return towers()


NAMES = [f"{n}, {side}" for n in [*OPEN, *FAMILIES] for side in ("vision", "text")]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "roberta-ViT-B-32, text"])
@torch.no_grad()
def test_the_views_give_what_the_model_computes(every: dict[str, tuple[HookedTower, Tensor]], name: str) -> None:
    tower, inputs = every[name]
    _, cache = tower.run_with_cache(inputs)
    for layer, block in enumerate(tower.blocks):
        if block.post_norm or block.mlp.norm_in is not None:
            before, middle = cache["resid_pre", layer], cache["resid_mid", layer]
        else:
            before, middle = block.ln1(cache["resid_pre", layer]), block.ln2(cache["resid_mid", layer])
        for letter in "qkv":
            weight, bias = getattr(tower, f"W_{letter.upper()}")[layer], getattr(tower, f"b_{letter.upper()}")[layer]
            close(torch.einsum("bpd,hde->bphe", before, weight) + bias, cache[letter, layer])
        pre = middle @ (tower.W_in if tower.W_gate is None else tower.W_gate)[layer]
        bias = tower.b_in[layer] if block.mlp.b_gate is None else block.mlp.b_gate
        close(pre + bias, cache["pre", layer])
        if not block.post_norm:
            z = block.attn.pre_output(cache["z", layer])
            attn_out = torch.einsum("bphe,hed->bpd", z, tower.W_O[layer]) + tower.b_O[layer]
            close(attn_out, cache["attn_out", layer])
            close(cache["post", layer] @ tower.W_out[layer] + tower.b_out[layer], cache["mlp_out", layer])


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_views_are_the_stock_weights() -> None:
    clip = double()
    model: Any = clip.model
    attention = model.transformer.resblocks[1].attn
    text, vision = clip.text, clip.vision
    assert text is not None
    assert vision is not None
    d, heads = text.cfg.d_model, text.cfg.n_heads
    query = attention.in_proj_weight[:d]
    assert torch.equal(text.W_Q[1].permute(0, 2, 1).reshape(d, d), query)
    assert torch.equal(text.b_V[1].reshape(d), attention.in_proj_bias[2 * d :])
    assert torch.equal(text.W_O[1].reshape(d, d), attention.out_proj.weight.T)
    assert torch.equal(text.W_in[1], model.transformer.resblocks[1].mlp.c_fc.weight.T)
    assert torch.equal(text.W_E, model.token_embedding.weight)
    assert torch.equal(text.W_pos, model.positional_embedding)
    assert torch.equal(vision.W_pos, model.visual.positional_embedding)
    assert torch.equal(text.QK.AB, text.W_Q @ text.W_K.transpose(-2, -1))
    assert torch.equal(text.OV.AB[1], text.blocks[1].attn.OV.AB)
    assert torch.equal(text.QK.AB[1], text.blocks[1].attn.QK.AB)
    assert text.all_head_labels() == [f"L{layer}H{head}" for layer in range(3) for head in range(heads)]
    assert text.W_gate is None


@torch.no_grad()
def test_patches_are_embedded_by_the_view() -> None:
    clip = double()
    vision = clip.vision
    assert vision is not None
    images = tiny_images().double()
    _, cache = vision.run_with_cache(images)
    pixels = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(4, 4, -1)
    close(pixels @ vision.W_E, cache["hook_patch_embed"])


@pytest.mark.parametrize("options", [{}, {"vision": {"pool_type": "avg", "final_ln_after_pool": True}}])
@torch.no_grad()
def test_the_unembedding_gives_the_logits_of_the_bank(options: dict[str, Any]) -> None:
    clip = double(**options)
    vision = clip.vision
    assert vision is not None
    with pytest.raises(InputError, match="a bank of concepts"):
        _ = vision.W_U
    clip.set_text_bank(["one", "two", "three"])
    output = vision(tiny_images().double())
    assert vision.bank is not None
    normed: dict[str, Tensor] = {}
    vision.run_with_hooks(
        tiny_images().double(),
        fwd_hooks=[("ln_final.hook_normalized", lambda acts, hook: normed.update(x=acts))],
    )
    last = normed["x"] * vision.ln_final.w + vision.ln_final.b
    pooled = last.reshape(4, -1, last.shape[-1])[:, 0]
    close(pooled @ vision.W_U + vision.b_U, output @ vision.bank.embeddings.T)


def test_towers_without_such_weights_say_so(every: dict[str, tuple[HookedTower, Tensor]]) -> None:
    text, _ = every["roberta-ViT-B-32, text"]
    with pytest.raises(InputError, match="position embeddings that are added"):
        _ = text.W_pos
    stages = cliplens.wrap(reduced_model("convnext_base")).vision
    assert stages is not None
    for name in ("W_Q", "W_gate", "QK", "b_out"):
        with pytest.raises(InputError, match="hooks inside its blocks"):
            getattr(stages, name)
    with pytest.raises(InputError, match="one convolution"):
        _ = stages.W_E


def test_positions_have_names() -> None:
    clip = cliplens.load("world", device="cpu")
    text, vision = clip.text, clip.vision
    assert text is not None
    assert vision is not None
    words = text.to_str_tokens("a red ring")
    assert len(words) == text.cfg.n_ctx
    assert "red" in [word.strip() for word in words]
    assert text.to_str_tokens(["a red ring", "a ring"])[0] == words
    assert text.to_str_tokens(text.to_tokens("a red ring")[0]) == words
    names = vision.to_str_tokens()
    assert len(names) == vision.cfg.n_ctx
    assert names[0] == "CLS"
    assert names[1] == "0,0"
    bare = cliplens.wrap(tiny_model()).text
    assert bare is not None
    assert bare.to_str_tokens(tiny_tokens(1)[0])[0] == "<47>"


def test_the_joint_configuration_names_the_towers() -> None:
    clip = cliplens.load("world", device="cpu")
    assert clip.cfg.vision == clip.vision.cfg  # type: ignore[union-attr]
    assert clip.cfg.text == clip.text.cfg  # type: ignore[union-attr]
    assert (clip.cfg.model_name, clip.cfg.d_embed, clip.cfg.dtype) == ("world", 64, torch.float32)
    with pytest.raises(AttributeError, match=r"use cfg\.vision\.n_layers or cfg\.text\.n_layers"):
        _ = clip.cfg.n_layers  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="d_embed"):
        _ = clip.cfg.d_embd  # type: ignore[attr-defined]
