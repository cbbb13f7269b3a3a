"""The joint model: names, logits, and the traps two towers under one root set (each had a test that failed first)."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cliplens.errors import InputError, UnknownNameError
from cliplens.hooked import HookedCLIP, identity_of
from cliplens.testing import fingerprint
from cliplens_hooks.towers.open_clip import OpenClipTower
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_preprocess, tiny_tokens

POST = "blocks.1.hook_resid_post"


def hooked(kind: str = "clip", **options: Any) -> HookedCLIP:
    model = tiny_model(kind, **options)
    tokenizer = TinyTokenizer()
    identity = identity_of(model, name="tiny", pretrained=None, preprocess=tiny_preprocess, tokenizer=tokenizer)
    vision, text = (OpenClipTower().open(model, side) for side in ("vision", "text"))  # type: ignore[arg-type]
    return HookedCLIP(
        model, vision=vision, text=text, preprocess=tiny_preprocess, tokenizer=tokenizer, identity=identity
    )


@pytest.fixture
def clip() -> HookedCLIP:
    return hooked()


IMAGES, TOKENS = tiny_images(), tiny_tokens()


@pytest.mark.parametrize("bias", [None, -3.0])
def test_logits_are_the_stock_models_bit_for_bit(bias: float | None) -> None:
    clip = hooked("custom", init_logit_bias=bias)
    with torch.no_grad():
        assert torch.equal(clip(IMAGES, TOKENS), clip.model.get_logits(IMAGES, TOKENS)[0])
        assert torch.equal(clip.encode_image(IMAGES), clip.model.encode_image(IMAGES))
        assert torch.equal(clip.encode_text(TOKENS, normalize=True), clip.model.encode_text(TOKENS, normalize=True))


def test_reading_one_residual_hook_keeps_the_logits_bit_for_bit(clip: HookedCLIP) -> None:
    with torch.no_grad():
        logits, cache = clip.run_with_cache(IMAGES, TOKENS, names_filter=[f"vision.{POST}", f"text.{POST}"])
        assert torch.equal(logits, clip(IMAGES, TOKENS))
    assert list(cache) == [f"vision.{POST}", f"text.{POST}"]
    assert cache.vision["resid_post", 1] is cache[f"vision.{POST}"]
    assert cache.text["resid_post", -2].shape == (4, 8, 48)


def test_stopping_stops_both_towers_and_gives_no_logits(clip: HookedCLIP) -> None:
    logits, cache = clip.run_with_cache(IMAGES, TOKENS, stop_at_layer=1)
    assert logits is None
    assert {name for name in cache if ".blocks.1." in name} == set()
    assert {"vision.blocks.0.hook_resid_post", "text.blocks.0.hook_resid_post"} <= set(cache)


def test_one_side_alone_runs_without_logits(clip: HookedCLIP) -> None:
    logits, cache = clip.run_with_cache(IMAGES, None, names_filter=lambda name: name.endswith("hook_embedding"))
    assert logits is None
    assert list(cache) == ["vision.hook_embedding"]
    torch.testing.assert_close(cache["vision.hook_embedding"].norm(dim=-1), torch.ones(4, 1))


def test_logits_are_computed_from_the_edited_embedding(clip: HookedCLIP) -> None:
    new = torch.randn(4, 1, 32)
    with torch.no_grad():
        logits = clip.run_with_hooks(IMAGES, TOKENS, fwd_hooks=[("vision.hook_embedding", lambda x, hook: new)])
        wanted = clip.model.logit_scale.exp() * new[:, 0] @ clip.encode_text(TOKENS, normalize=True).T
        torch.testing.assert_close(logits, wanted)
        moved = clip.vision.run_with_hooks(IMAGES, fwd_hooks=[("hook_embedding", lambda x, hook: new)])
        torch.testing.assert_close(F.normalize(moved, dim=-1), F.normalize(new[:, 0], dim=-1))
    assert clip.width("vision.hook_embedding") == 32
    assert clip.run_with_cache(IMAGES, TOKENS)[1]["hook_logits"].shape == (4, 4)


# One hook point has two names: the tower's own and the joint one.


def test_each_root_has_its_own_hook_names(clip: HookedCLIP) -> None:
    seen: list[tuple[str, int]] = []

    def look(x: Tensor, hook: Any) -> None:
        seen.append((hook.name, hook.layer()))

    clip.vision.run_with_hooks(IMAGES, fwd_hooks=[(POST, look)])
    clip.run_with_hooks(IMAGES, TOKENS, fwd_hooks=[(f"text.{POST}", look)])
    assert seen == [(POST, 1), (f"text.{POST}", 1)]
    cache = clip.vision.run_with_cache(IMAGES)[1]
    assert cache["resid_pre", 0].shape == (4, 5, 64)
    assert not [name for name in cache if name.startswith("vision.")]
    with pytest.raises(ValueError, match="is not in a block"):
        clip.run_with_hooks(IMAGES, TOKENS, fwd_hooks=[("vision.hook_embed", look)])


def test_permanent_hooks_get_joint_names_too(clip: HookedCLIP) -> None:
    kept = clip.add_caching_hooks(lambda name: name.endswith("resid_post"))
    clip(IMAGES, TOKENS)
    assert {f"vision.{POST}", f"text.{POST}"} < set(kept)
    clip.reset_hooks()
    assert clip.vision.is_unhooked()


# Trap 2: contexts of the joint model and of a tower, one within the other.


def test_a_towers_run_leaves_the_joint_models_hooks_in_place(clip: HookedCLIP) -> None:
    count = []
    with clip.hooks([(f"vision.{POST}", lambda x, hook: count.append(hook.name))]):
        clip.vision(IMAGES)
        clip.vision.run_with_cache(IMAGES)
        with clip.vision.hooks([(POST, lambda x, hook: None)]):
            clip(IMAGES, TOKENS)
        clip.vision(IMAGES)
    assert count == [f"vision.{POST}"] * 4
    clip.vision(IMAGES)
    assert len(count) == 4
    assert clip.vision.is_unhooked()


def test_permanent_hooks_stay(clip: HookedCLIP) -> None:
    count = []
    clip.add_perma_hook(f"text.{POST}", lambda x, hook: count.append(1))
    clip.text.run_with_cache(TOKENS)
    clip.reset_hooks()
    clip.text(TOKENS)
    assert len(count) == 2
    clip.reset_hooks(including_permanent=True)
    clip.text(TOKENS)
    assert len(count) == 2


# Trap 3: what changes in a tower's tree is seen at the joint model.


def test_the_joint_hook_dict_follows_the_towers(clip: HookedCLIP) -> None:
    clip.vision.blocks[0].hook_extra = torch.nn.Sequential()
    clip.vision.blocks[0].hook_extra.hook_inside = copy.deepcopy(clip.vision.blocks[0].hook_resid_pre)
    clip.vision.setup()
    assert "vision.blocks.0.hook_extra.hook_inside" in clip.hook_dict
    del clip.vision.blocks[0].hook_extra
    clip.setup()
    assert "vision.blocks.0.hook_extra.hook_inside" not in clip.hook_dict


def test_the_users_model_is_never_altered() -> None:
    model = tiny_model("clip")
    before, weights = fingerprint(model), {k: v.clone() for k, v in model.state_dict().items()}
    vision, text = (OpenClipTower().open(model, side) for side in ("vision", "text"))  # type: ignore[arg-type]
    identity = identity_of(model, name="tiny", pretrained=None, preprocess=None, tokenizer=None)
    clip = HookedCLIP(model, vision=vision, text=text, preprocess=None, tokenizer=None, identity=identity)
    clip.run_with_cache(IMAGES, TOKENS)
    clip.run_with_hooks(IMAGES, TOKENS, fwd_hooks=[(lambda name: "resid" in name, lambda x, hook: x.mul_(0))])
    assert fingerprint(model) == before
    assert list(clip.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert {id(p) for p in clip.parameters()} == {id(p) for p in model.parameters()}


def test_device_and_dtype_moves_reach_towers_and_model(clip: HookedCLIP) -> None:
    clip.double()
    assert clip.dtype == clip.vision.cfg.dtype == clip.text.cfg.dtype == torch.float64
    with torch.no_grad():
        assert torch.equal(clip(IMAGES, TOKENS), clip.model.get_logits(IMAGES.double(), TOKENS)[0])
    clip.half()
    assert clip(IMAGES, TOKENS).dtype == torch.float16
    assert isinstance(clip.vision.cfg.device, torch.device)


def test_reading_computes_nothing_past_the_last_name(clip: HookedCLIP) -> None:
    ran = []
    handle = clip.model.visual.transformer.resblocks[2].register_forward_hook(lambda *a: ran.append(1))
    got = clip.vision.read(IMAGES, ["blocks.0.attn.hook_z", POST])
    handle.remove()
    assert not ran
    assert list(got) == ["blocks.0.attn.hook_z", POST]
    assert clip.vision.stop_after(["hook_embed"]) == 0
    assert clip.vision.stop_after([POST, "hook_embedding"]) is None
    with pytest.raises(InputError, match="leave stop_at_layer out"):
        clip.vision.read(IMAGES, [POST], stop_at_layer=1)


def test_hook_result_is_cached_only_when_requested(clip: HookedCLIP) -> None:
    result = "blocks.0.attn.hook_result"
    assert result not in clip.vision.run_with_cache(IMAGES)[1]
    cache = clip.vision.run_with_cache(IMAGES, names_filter=[result, "blocks.0.hook_attn_out"])[1]
    bias = clip.vision.blocks[0].attn.b_O
    torch.testing.assert_close(cache[result].sum(2) + bias, cache["blocks.0.hook_attn_out"])
    clip.vision.set_use_attn_result(True)
    assert result in clip.vision.run_with_cache(IMAGES)[1]


# SAELens speaks integers only.


def test_image_tokens_are_looked_up(clip: HookedCLIP) -> None:
    clip.vision.image_source = lambda numbers: IMAGES[numbers]
    tokens = clip.vision.image_tokens(torch.tensor([2, 0]))
    assert tokens.tolist() == [[0, 3, 3, 3, 3], [0, 1, 1, 1, 1]]
    assert torch.equal(clip.vision(tokens), clip.vision(IMAGES[[2, 0]]))
    assert torch.equal(clip.vision(tokens[:, -1:]), clip.vision(IMAGES[[2, 0]]))
    with pytest.raises(InputError, match="image_tokens"):
        clip.vision(torch.tensor([[0, 1, 2, 3, 4]]))


def test_the_text_tower_has_the_interface_of_a_language_model(clip: HookedCLIP) -> None:
    assert clip.text.to_tokens("ab", prepend_bos=False, truncate=False, move_to_device=False).shape == (1, 8)
    assert (clip.text.tokenizer.bos_token_id, clip.text.tokenizer.eos_token_id, clip.text.tokenizer.pad_token_id) == (
        47,
        48,
        0,
    )
    assert clip.text.W_E is clip.model.token_embedding.weight
    cache = clip.text.run_with_cache(TOKENS, names_filter=[POST], stop_at_layer=2, prepend_bos=False)[1]
    assert cache[POST].shape == (4, 8, 48)


# Words.


@pytest.mark.parametrize(
    ("do", "error", "words"),
    [
        (
            lambda c: c.run_with_cache(IMAGES, TOKENS, names_filter="vision.blocks.1.hook_resid_pots"),
            UnknownNameError,
            POST,
        ),
        (lambda c: c.vision.run_with_cache(IMAGES, names_filter=f"vision.{POST}"), UnknownNameError, "nearest"),
        (
            lambda c: c.vision.run_with_hooks(IMAGES, fwd_hooks=[("hook_embedd", print)]),
            UnknownNameError,
            "'hook_embed'",
        ),
        (lambda c: c.vision.add_hook("nope", print), UnknownNameError, "found 'nope'"),
        (lambda c: c(TOKENS, IMAGES), InputError, "image_source"),
        (lambda c: c.text(IMAGES), InputError, "pass images to clip.vision"),
        (lambda c: c.text(TOKENS[:, :5]), InputError, r"integers \[batch, 8\]"),
        (lambda c: c.vision(torch.zeros(2, 3, 16, 16)), InputError, r"float \[batch, 3, 32, 32\]"),
        (lambda c: c.vision(IMAGES, stop_at_layer=7), InputError, "between -3 and 3"),
        (lambda c: c.vision.width("blocks.0.attn.hook_pattern"), InputError, "hook_result"),
        (lambda c: c.width(POST), InputError, "'vision.' or 'text.'"),
        (copy.deepcopy, InputError, "safetensors"),
    ],
)
def test_wrong_inputs_are_errors_of_cliplens(clip: HookedCLIP, do: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        do(clip)


def test_a_vision_tower_alone_is_a_model_too() -> None:
    model = tiny_model("clip")
    identity = identity_of(model, name="tiny", pretrained=None, preprocess=None, tokenizer=None)
    vision = OpenClipTower().open(model, "vision")
    clip = HookedCLIP(model, vision=vision, text=None, preprocess=None, tokenizer=None, identity=identity)
    assert clip(IMAGES, None) is None
    with pytest.raises(InputError, match="text tower"):
        clip.encode_text(TOKENS)


def test_decompositions_sum_to_the_stream_behind_ln_pre_as_well(clip: HookedCLIP) -> None:
    for tower, inputs in ((clip.vision, IMAGES), (clip.text, TOKENS)):
        tower.double()
        cache = tower.run_with_cache(inputs)[1]
        last = cache["resid_post", -1]
        torch.testing.assert_close(cache.decompose_resid().sum(0), last)
        full = cache.get_full_resid_decomposition(expand_neurons=False)
        torch.testing.assert_close(full.sum(0), last)
