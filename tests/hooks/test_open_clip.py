"""open_clip's transformers in every variant open_clip can build: the conformance kit, and a forward written by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import text_global_pool
from torch import Tensor

from cliplens.testing import (
    check_adapter,
    check_tower,
    every_hook_fires,
    fingerprint,
    hooked_equals_stock,
    unhooked_equals_stock,
)
from cliplens_hooks.towers.open_clip import OpenClipTower
from support.tiny import tiny_images, tiny_model, tiny_tokens

VISION: dict[str, dict[str, Any]] = {
    "plain": {},
    "no ln_pre, average pool": {"no_ln_pre": True, "pool_type": "avg"},
    "LayerScale, norm after pool": {"ls_init_value": 0.5, "final_ln_after_pool": True},
    "average pool, norm after": {"pool_type": "avg", "final_ln_after_pool": True},
    "no pool": {"pool_type": "none"},
    "attentional pool": {"attentional_pool": True, "attn_pooler_queries": 5},
    "parallel poolers": {"attentional_pool": "parallel", "attn_pooler_queries": 5, "width": 32},
    "cascaded poolers": {"attentional_pool": "cascade", "attn_pooler_queries": 5, "width": 32},
    "sine positions": {"pos_embed_type": "sin_cos_2d"},
    "patch dropout": {"patch_dropout": 0.5},
    "tokens too": {"output_tokens": True},
    "qk-norm, head scales": {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True},
    "scaled branches": {"scale_attn": True, "scale_fc": True, "ls_init_value": 0.5},
}
TEXT: dict[str, dict[str, Any]] = {
    "plain": {},
    "no causal mask, last": {"no_causal_mask": True, "pool_type": "last"},
    "no causal mask, first": {"no_causal_mask": True, "pool_type": "first"},
    "eos": {"pool_type": "eos", "eos_id": 48},
    "no pool": {"pool_type": "none"},
    "projection with bias": {"proj_bias": True},
    "no projection": {"proj_type": "none"},
    "LayerScale": {"ls_init_value": 0.5},
    "tokens too": {"output_tokens": True},
    "appended class token": {"embed_cls": True},
    "custom block": {"qk_norm": True, "scale_attn": True},
}


WHOLE_KIT = (
    "no ln_pre, average pool", "LayerScale, norm after pool", "cascaded poolers", "qk-norm, head scales",
    "scaled branches",
    "no causal mask, last", "eos", "custom block",
)  # fmt: skip
"""Variants whose blocks or ends differ most; the others go through the whole kit among the slow tests."""


def variants(of: dict[str, Any]) -> list[Any]:
    return [name if name in WHOLE_KIT else pytest.param(name, marks=pytest.mark.slow) for name in of]


def vision_model(variant: str) -> Any:
    return tiny_model("custom", vision={"layers": 2, **VISION[variant]})


def text_model(variant: str) -> Any:
    return tiny_model("custom", text={"layers": 2, **TEXT[variant]})


@pytest.mark.parametrize("variant", variants(VISION))
def test_vision_towers_conform(variant: str) -> None:
    no_effect = ("attn_pool.", "hook_pool_out") if variant == "parallel poolers" else ()
    check_adapter(OpenClipTower(), vision_model(variant), "vision", tiny_images(3), no_effect=no_effect)


@pytest.mark.parametrize("variant", variants(TEXT))
def test_text_towers_conform(variant: str) -> None:
    check_adapter(OpenClipTower(), text_model(variant), "text", tiny_tokens(3))


@pytest.mark.parametrize("variant", VISION)
def test_every_vision_variant_equals_stock_with_and_without_hooks(variant: str) -> None:
    model = vision_model(variant)
    equals_stock(model, "vision", tiny_images(3), model.visual)


@pytest.mark.parametrize("variant", TEXT)
def test_every_text_variant_equals_stock_with_and_without_hooks(variant: str) -> None:
    model = text_model(variant)
    equals_stock(model, "text", tiny_tokens(3), model.text)


def equals_stock(model: Any, side: Any, inputs: Tensor, encoder: Any) -> None:
    def stock(x: Tensor) -> Tensor:
        out = encoder(x)
        return out[0] if isinstance(out, tuple) else out

    tower = OpenClipTower().open(model, side)
    for dtype in (torch.float32, torch.float64):
        tower.to(dtype)
        typed = inputs.to(dtype) if inputs.is_floating_point() else inputs
        unhooked_equals_stock(tower, typed, stock)
        hooked_equals_stock(tower, typed, stock)
    every_hook_fires(tower, inputs)


@pytest.mark.parametrize("kind", ["clip", "coca"])
@pytest.mark.parametrize("side", ["vision", "text"])
def test_towers_of_clip_and_coca_conform(kind: str, side: Any) -> None:
    model = tiny_model(kind, quick_gelu=True)
    tower = OpenClipTower().open(model, side)
    encode = model.encode_image if side == "vision" else model.encode_text
    inputs = tiny_images(3) if side == "vision" else tiny_tokens(3)
    check_tower(tower, inputs, stock=lambda x: encode(x, normalize=False))


def test_half_precision_as_open_clip_makes_it() -> None:
    from open_clip.model import convert_weights_to_lp

    model = tiny_model("clip", cast_dtype=torch.bfloat16)
    convert_weights_to_lp(model, torch.bfloat16)
    tower = OpenClipTower().open(model, "vision")
    images = tiny_images(3).bfloat16()
    with torch.no_grad():
        stock = model.encode_image(images)
        assert torch.equal(tower(images), stock)
        hooked, _ = tower.run_with_cache(images)
    torch.testing.assert_close(hooked, stock, rtol=0.05, atol=0.05)


def test_a_model_is_the_same_after_it_was_opened_and_used() -> None:
    model = tiny_model("clip")
    before = fingerprint(model)
    for side, inputs in (("vision", tiny_images()), ("text", tiny_tokens())):
        OpenClipTower().open(model, side).run_with_cache(inputs)  # type: ignore[arg-type]
    assert fingerprint(model) == before


def test_other_models_are_left_to_other_adapters() -> None:
    assert not OpenClipTower().opens(torch.nn.Linear(2, 2), "vision")
    assert not OpenClipTower().opens(torch.nn.Linear(2, 2), "text")


# A forward written by hand, with a place to edit at every residual hook.


def by_hand(block: Any, x: Tensor, mask: Tensor | None, edit: Any, at: str) -> Tensor:
    d = x.shape[-1]
    heads = block.attn.num_heads

    def norm(ln: Any, y: Tensor) -> Tensor:
        return (y - y.mean(-1, keepdim=True)) / (
            y.var(-1, unbiased=False, keepdim=True) + ln.eps
        ).sqrt() * ln.weight + ln.bias

    x = edit(f"{at}.hook_resid_pre", x)
    packed = norm(block.ln_1, x) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
    q, k, v = (t.view(*x.shape[:2], heads, d // heads).transpose(1, 2) for t in packed.split(d, -1))
    scores = q @ k.transpose(-1, -2) / (d // heads) ** 0.5
    z = (scores if mask is None else scores + mask).softmax(-1) @ v
    out = z.transpose(1, 2).flatten(2) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    x = edit(f"{at}.hook_resid_mid", x + edit(f"{at}.hook_attn_out", out))
    hidden = norm(block.ln_2, x) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    out = hidden * torch.sigmoid(1.702 * hidden) @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias
    return edit(f"{at}.hook_resid_post", x + edit(f"{at}.hook_mlp_out", out))


def vision_by_hand(model: Any, images: Tensor, edit: Any) -> Tensor:
    v = model.visual
    patches = F.unfold(images, 16, stride=16).transpose(1, 2) @ v.conv1.weight.flatten(1).T
    x = torch.cat([v.class_embedding.expand(len(images), 1, -1), patches], 1) + v.positional_embedding
    x = edit("hook_embed", F.layer_norm(x, x.shape[-1:], v.ln_pre.weight, v.ln_pre.bias))
    for i, block in enumerate(v.transformer.resblocks):
        x = by_hand(block, x, None, edit, f"blocks.{i}")
    return F.layer_norm(x[:, 0], x.shape[-1:], v.ln_post.weight, v.ln_post.bias) @ v.proj


def text_by_hand(model: Any, tokens: Tensor, edit: Any) -> Tensor:
    x = edit("hook_embed", model.token_embedding.weight[tokens])
    x = x + edit("hook_pos_embed", model.positional_embedding.expand(len(tokens), -1, -1))
    for i, block in enumerate(model.transformer.resblocks):
        x = by_hand(block, x, model.attn_mask, edit, f"blocks.{i}")
    x = F.layer_norm(x, x.shape[-1:], model.ln_final.weight, model.ln_final.bias)
    return text_global_pool(x, tokens, "argmax") @ model.text_projection


@pytest.mark.parametrize("side", ["vision", "text"])
def test_every_residual_write_equals_the_same_edit_by_hand(side: Any) -> None:
    model = tiny_model("clip", quick_gelu=True).double()
    tower = OpenClipTower().open(model, side)
    inputs = tiny_images().double() if side == "vision" else tiny_tokens()
    hand = vision_by_hand if side == "vision" else text_by_hand
    v = torch.randn(tower.cfg.d_model, generator=torch.Generator().manual_seed(5)).double()
    residual = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    names = ["hook_embed", *(f"blocks.{i}.hook_{h}" for i in range(3) for h in residual)]
    names += ["hook_pos_embed"] if side == "text" else []
    with torch.no_grad():
        for name in names:
            wanted = hand(model, inputs, lambda at, x, name=name: x + v if at == name else x)
            found = tower.run_with_hooks(inputs, fwd_hooks=[(name, lambda x, hook: x + v)])
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
            in_place = tower.run_with_hooks(inputs, fwd_hooks=[(name, lambda x, hook: x.add_(v))])
            torch.testing.assert_close(in_place, wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(tower(inputs), hand(model, inputs, lambda at, x: x), rtol=0, atol=1e-12)
