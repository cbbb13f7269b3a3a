"""Attributions add up to the similarity, and each is what a slow obvious version says, in float64."""

from typing import Any

import pytest
import torch
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig
from torch import Tensor

import cliplens
from cliplens.analysis import attribute_heads, attribute_latent_pairs, attribute_latents, attribute_match
from cliplens.errors import InputError, MismatchError, UnknownNameError
from cliplens.hooked import HookedCLIP
from cliplens.sae import Dictionary
from support.tiny import TinyTokenizer, tiny_images, tiny_model, tiny_tokens

KINDS = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 7}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
    "gated": (GatedSAE, GatedSAEConfig, {}),
    "layer norm": (StandardSAE, StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    "rescaled": (TopKSAE, TopKSAEConfig, {"k": 7, "rescale_acts_by_decoder_norm": True}),
}


def made(kind: str, hook: str, d_in: int, **options: Any) -> Any:
    cls, config, own = KINDS[kind]
    return filled(cls(config(d_in=d_in, d_sae=80, metadata=SAEMetadata(hook_name=hook), **own, **options)))


def filled(sae: Any) -> Any:
    torch.manual_seed(1)
    sae = sae.to(torch.float64)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return sae


def double(**options: Any) -> HookedCLIP:
    return cliplens.wrap(tiny_model(**options).double(), tokenizer=TinyTokenizer())


@pytest.fixture(scope="module")
def clip() -> HookedCLIP:
    return double()


def pairs(n: int = 3) -> tuple[Tensor, Tensor]:
    return tiny_images(n).double(), tiny_tokens(n)


def similarity(clip: HookedCLIP, images: Tensor, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        u, v = clip.model.encode_image(images, normalize=True), clip.model.encode_text(tokens, normalize=True)
    return (u * v).sum(-1)


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def sides(clip: HookedCLIP, side: str) -> tuple[Any, Tensor, Tensor, Tensor]:
    """A tower, its inputs, the other tower's embeddings, the similarities."""
    images, tokens = pairs()
    with torch.no_grad():
        if side == "vision":
            return clip.vision, images, clip.text.encode(tokens)[1], similarity(clip, images, tokens)
        return clip.text, tokens, clip.vision.encode(images)[1], similarity(clip, images, tokens)


HOOKS = [
    "hook_embedding",
    "hook_projected",
    "hook_pooled",
    "blocks.0.hook_resid_pre",
    "blocks.1.hook_resid_mid",
    "blocks.2.hook_resid_post",
    "blocks.2.hook_mlp_out",
    "blocks.0.hook_attn_out",
    "blocks.1.attn.hook_z",
    "blocks.2.mlp.hook_post",
]


@pytest.mark.parametrize("side", ["vision", "text"])
@pytest.mark.parametrize("hook", HOOKS)
def test_latents_and_the_rest_sum_to_the_similarity(clip: HookedCLIP, side: str, hook: str) -> None:
    tower, inputs, towards, expected = sides(clip, side)
    found = attribute_latents(tower, inputs, towards, made("standard", hook, tower.width(hook)))
    assert found.parts.shape == (3, 80)
    close(found.similarity, expected)
    close(found.total, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", ["hook_embedding", "blocks.1.hook_resid_post"])
def test_every_architecture_sums(clip: HookedCLIP, kind: str, hook: str) -> None:
    tower, inputs, towards, expected = sides(clip, "vision")
    close(attribute_latents(tower, inputs, towards, made(kind, hook, tower.width(hook))).total, expected)


@torch.no_grad()
def test_at_the_embedding_it_is_codes_times_decoder(clip: HookedCLIP) -> None:
    tower, inputs, towards, _ = sides(clip, "vision")
    sae = made("standard", "hook_embedding", 32)
    found = attribute_latents(tower, inputs, towards, sae)
    embedding = tower.encode(inputs)[1]
    codes = sae.encode(embedding)
    for row in range(3):
        for latent in range(80):
            slow = float(codes[row, latent] * (sae.W_dec[latent] @ towards[row]))
            assert float(found.parts[row, latent]) == pytest.approx(slow, abs=1e-12)
    close(found.rest["decoder bias"], towards @ sae.b_dec)
    close(found.rest["error"], ((embedding - sae(embedding)) * towards).sum(-1))
    close(found.rest["elsewhere"], torch.zeros(3, dtype=torch.float64))


def through_held_norm(tower: Any, inputs: Tensor, stream: Tensor) -> Tensor:
    """A stream through final norm (scale of these inputs), pooling and projection over the output's length, slowly."""
    _, cache = tower.run_with_cache(inputs)
    scale, norm = cache["ln_final.hook_scale"], tower.ln_final
    normed = (stream - stream.mean(-1, keepdim=True)) / scale * norm.w + norm.b
    pooled = normed[torch.arange(len(inputs)), tower.special_position(inputs)]
    return tower.project(pooled) / tower(inputs).norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("side", ["vision", "text"])
@torch.no_grad()
def test_at_a_residual_hook_it_is_the_change_of_the_held_output(clip: HookedCLIP, side: str) -> None:
    tower, inputs, towards, _ = sides(clip, side)
    hook = "blocks.1.hook_resid_post"
    sae = made("standard", hook, tower.width(hook))
    found = attribute_latents(tower, inputs, towards, sae)
    _, cache = tower.run_with_cache(inputs)
    codes = sae.encode(cache[hook])
    last = cache["blocks.2.hook_resid_post"]
    whole = through_held_norm(tower, inputs, last)
    for latent in range(0, 80, 9):
        without = through_held_norm(tower, inputs, last - codes[..., latent, None] * sae.W_dec[latent])
        close(found.parts[:, latent], ((whole - without) * towards).sum(-1))
    later = cache["blocks.2.hook_attn_out"] + cache["blocks.2.hook_mlp_out"]
    without = through_held_norm(tower, inputs, last - later)
    close(found.rest["elsewhere"], ((whole - without) * towards).sum(-1))
    empty = through_held_norm(tower, inputs, torch.zeros_like(last))
    close(found.rest["head offset"], (empty * towards).sum(-1))


@torch.no_grad()
def test_a_latent_that_fires_elsewhere_counts_nothing(clip: HookedCLIP) -> None:
    tower, inputs, towards, _ = sides(clip, "vision")
    hook = "blocks.1.hook_resid_post"
    sae = made("topk", hook, 64)
    codes = sae.encode(tower.read(inputs, [hook])[hook])
    found = attribute_latents(tower, inputs, towards, sae)
    assert torch.equal(found.parts != 0, codes[:, 0] != 0)


def test_a_transcoder_is_attributed_where_it_writes(clip: HookedCLIP) -> None:
    tower, inputs, towards, expected = sides(clip, "vision")
    metadata = SAEMetadata(hook_name="blocks.2.mlp.hook_in", hook_name_out="blocks.2.hook_mlp_out")
    config = SkipTranscoderConfig(d_in=64, d_out=64, d_sae=80, apply_b_dec_to_input=False, metadata=metadata)
    coder = filled(SkipTranscoder(config))
    found = attribute_latents(tower, inputs, towards, coder)
    close(found.total, expected)
    with torch.no_grad():
        read = tower.read(inputs, ["blocks.2.mlp.hook_in", "blocks.2.hook_mlp_out"])
        last = tower(inputs, stop_at_layer=3)
        codes = coder.encode(read["blocks.2.mlp.hook_in"])
        whole = through_held_norm(tower, inputs, last)
        without = through_held_norm(tower, inputs, last - codes[..., 5, None] * coder.W_dec[5])
        close(found.parts[:, 5], ((whole - without) * towards).sum(-1))


def test_heads_that_lie_side_by_side_in_an_sae_with_its_own_reshaping(clip: HookedCLIP) -> None:
    tower, inputs, towards, _ = sides(clip, "vision")
    hook = "blocks.1.attn.hook_z"
    flat, own = made("standard", hook, 64), made("standard", hook, 64, reshape_activations="hook_z")
    close(attribute_latents(tower, inputs, towards, own).parts, attribute_latents(tower, inputs, towards, flat).parts)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"vision": {"no_ln_pre": True}, "text": {"proj_bias": True}, "kind": "custom"},
    {"vision": {"pool_type": "avg"}, "text": {"pool_type": "last"}},
    {"vision": {"pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.3}},
    {"kind": "coca"},
]


@pytest.mark.parametrize("variant", range(len(VARIANTS)))
@pytest.mark.parametrize("side", ["vision", "text"])
def test_heads_and_mlps_sum_to_the_similarity(variant: int, side: str) -> None:
    tower, inputs, towards, expected = sides(double(**VARIANTS[variant]), side)
    found = attribute_heads(tower, inputs, towards)
    close(found.similarity, expected)
    close(found.total, expected)
    n_heads = tower.cfg.n_heads
    assert sum(name.startswith("L") for name in found.names) == 3 * n_heads
    hook = "blocks.1.hook_resid_post"
    close(attribute_latents(tower, inputs, towards, made("standard", hook, tower.width(hook))).total, expected)


@torch.no_grad()
def test_a_heads_share_is_what_its_result_adds_through_the_held_norm(clip: HookedCLIP) -> None:
    tower, inputs, towards, _ = sides(clip, "text")
    found = attribute_heads(tower, inputs, towards)
    _, cache = tower.run_with_cache(inputs, names_filter=lambda name: True)
    last = cache["blocks.2.hook_resid_post"]
    whole = through_held_norm(tower, inputs, last)
    for layer, head in ((0, 0), (1, 2), (2, 1)):
        without = through_held_norm(tower, inputs, last - cache["result", layer][:, :, head])
        close(found.parts[:, found.names.index(f"L{layer}H{head}")], ((whole - without) * towards).sum(-1))
    without = through_held_norm(tower, inputs, last - cache["mlp_out", 1])
    close(found.parts[:, found.names.index("1_mlp_out")], ((whole - without) * towards).sum(-1))


def test_both_towers_take_the_same_number_apart(clip: HookedCLIP) -> None:
    images, tokens = pairs()
    expected = similarity(clip, images, tokens)
    embedding = made("standard", "hook_embedding", 32)
    deep = made("topk", "text.blocks.2.hook_resid_post", 48)
    match = attribute_match(clip, images, tokens, image_dictionary=embedding, text_dictionary=deep)
    for view in (match.image, match.text):
        close(view.total, expected)
    close(match.similarity, expected)
    heads = attribute_match(clip, images, tokens)
    close(heads.image.total, expected)
    name, value = heads.text.top(1, 3)[0]
    assert abs(value) == pytest.approx(float(heads.text.parts[1].abs().max()))
    assert name in heads.text.names


@pytest.mark.parametrize("hooks", [("hook_embedding", "hook_embedding"), ("blocks.1.hook_resid_post", "hook_pooled")])
@torch.no_grad()
def test_latent_pairs_sum_and_their_margins_are_the_one_sided_attributions(clip: HookedCLIP, hooks: Any) -> None:
    images, tokens = pairs(1)
    saes = [made("topk", hook, t.width(hook)) for hook, t in zip(hooks, (clip.vision, clip.text), strict=True)]
    found = attribute_latent_pairs(clip, images, tokens, image_dictionary=saes[0], text_dictionary=saes[1])
    total = found.pairs.sum() + found.image_alone.sum() + found.text_alone.sum() + found.rest
    close(total[None], similarity(clip, images, tokens))
    close(torch.tensor([found.similarity], dtype=torch.float64), similarity(clip, images, tokens))
    with pytest.warns(DeprecationWarning, match="'image' of attribute_match is now 'image_dictionary'"):
        match = attribute_match(clip, images, tokens, image=saes[0], text_dictionary=saes[1])
    with pytest.warns(DeprecationWarning, match="'of_image' of attribute_latent_pairs is now 'image_dictionary'"):
        old = attribute_latent_pairs(clip, images, tokens, of_image=saes[0], text_dictionary=saes[1])
    assert old.similarity == found.similarity
    close(found.pairs.sum(1) + found.image_alone, match.image.parts[0, found.image_latents])
    close(found.pairs.sum(0) + found.text_alone, match.text.parts[0, found.text_latents])
    k, m, value = found.top(1)[0]
    assert value == pytest.approx(float(found.pairs.flatten()[found.pairs.abs().argmax()]))
    assert k in found.image_latents
    assert m in found.text_latents


@torch.no_grad()
def test_a_centred_dictionary_reads_both_towers_raw(clip: HookedCLIP) -> None:
    images, tokens = pairs()
    means = {"image": torch.randn(32), "text": torch.randn(32)}
    dictionary = Dictionary(made("standard", "hook_embedding", 32), means)
    match = attribute_match(clip, images, tokens, dictionary)
    close(match.image.total, similarity(clip, images, tokens), 1e-6)
    close(match.text.total, similarity(clip, images, tokens), 1e-6)
    codes = dictionary.folded("text").encode(clip.text.encode(tokens)[1])
    expected = codes * (clip.vision.encode(images)[1] @ dictionary.decoder.T)
    close(match.text.parts, expected, 1e-6)


def refusals(clip: HookedCLIP) -> list[Any]:
    tower, inputs, towards, _ = sides(clip, "vision")
    sae = made("standard", "hook_embedding", 32)
    normed, places = made("standard", "ln_final.hook_normalized", 64), made("standard", "hook_pos_embed", 64)
    return [
        (
            InputError,
            "hook_embedding",
            lambda: attribute_latents(tower, inputs, towards, normed),
        ),
        (MismatchError, "width 32", lambda: attribute_latents(tower, inputs, towards, sae, hook="hook_pooled")),
        (
            UnknownNameError,
            "hook_embeding",
            lambda: attribute_latents(tower, inputs, towards, sae, hook="hook_embeding"),
        ),
        (MismatchError, "one direction per input", lambda: attribute_heads(tower, inputs, towards[:2])),
        (InputError, "unit-norm", lambda: attribute_heads(tower, inputs, 3 * towards)),
        (InputError, "one image", lambda: attribute_latent_pairs(clip, inputs, tiny_tokens(1), sae)),
        (
            InputError,
            "added to the residual stream",
            lambda: attribute_latents(tower, inputs, towards, places),
        ),
    ]


@pytest.mark.parametrize("which", range(7))
def test_what_cannot_add_up_is_refused(clip: HookedCLIP, which: int) -> None:
    error, words, call = refusals(clip)[which]
    with pytest.raises(error, match=words):
        call()
