"""Ablation at any hook against a hand-written one, and planted atoms that come back."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor
from torch.nn.functional import normalize

import cliplens
from cliplens.errors import InputError
from cliplens.hooked import HookedCLIP
from cliplens_plugins.modality import causal_effect, causal_effects
from cliplens_plugins.modality.causal import pair_log_probability
from support.tiny import tiny_images, tiny_model, tiny_tokens

N = 12


def dictionary(width: int, hook: str, d_sae: int = 6, seed: int = 0, bias: float = -0.1) -> StandardSAE:
    config = StandardSAEConfig(
        d_in=width, d_sae=d_sae, apply_b_dec_to_input=False, metadata=SAEMetadata(hook_name=hook), dtype="float64"
    )
    sae = StandardSAE(config)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rows = normalize(torch.randn(d_sae, width, generator=g, dtype=torch.float64), dim=1)
        sae.W_dec.copy_(1.5 * rows)
        sae.W_enc.copy_(rows.T)
        sae.b_enc.fill_(bias)
        sae.b_dec.fill_(0.1)
    return sae


def tiny() -> tuple[HookedCLIP, Tensor, Tensor]:
    return cliplens.wrap(tiny_model().double()), tiny_images(N).double(), tiny_tokens(N)


def slow(clip: HookedCLIP, images: Tensor, tokens: Tensor, saes: dict[str, Any], latent: int) -> dict[str, float]:
    """x becomes x - code * decoder row at the hook, by hand."""
    scale = float(clip.model.logit_scale.exp())

    def ablate(x: Tensor, hook: Any, sae: Any) -> Tensor:
        codes = torch.relu(x @ sae.W_enc + sae.b_enc)
        return x - codes[..., latent, None] * sae.W_dec[latent]

    def embedded(ablated: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        hooks = [(h, partial(ablate, sae=s)) for h, s in saes.items() if h.startswith(ablated)]
        with clip.hooks(fwd_hooks=hooks):
            image, text = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
            return normalize(image.flatten(1), dim=1), normalize(text.flatten(1), dim=1)

    before = pair_log_probability(*embedded(("neither",)), scale)
    towers = {"image": ("vision.",), "text": ("text.",), "both": ("vision.", "text.")}
    return {t: pair_log_probability(*embedded(which), scale) - before for t, which in towers.items()}


@pytest.mark.parametrize(
    "hooks",
    [
        ("vision.blocks.1.hook_resid_post",),
        ("text.blocks.0.hook_mlp_out",),
        ("vision.blocks.2.hook_attn_out", "text.blocks.1.hook_resid_mid"),
        ("vision.hook_embedding", "text.hook_embedding"),
    ],
)
@torch.no_grad()
def test_agrees_with_ablation_by_hand_at_any_hook(hooks: tuple[str, ...]) -> None:
    clip, images, tokens = tiny()
    saes = {h: dictionary(clip.width(cliplens.sites.Site.parse(h)), h, seed=n) for n, h in enumerate(hooks)}
    before = clip.encode_image(images), clip.encode_text(tokens)
    found = causal_effects(clip, images, tokens, list(saes.values()), range(6), n_random=2, forward_batch=5)
    for one in found:
        expected = slow(clip, images, tokens, saes, one.latent)
        assert {t: getattr(one.matching, t) for t in expected} == pytest.approx(expected, abs=1e-10)
    assert any(one.matching.both != 0 for one in found)
    if len(hooks) == 1:
        other = "text" if hooks[0].startswith("vision") else "image"
        assert all(getattr(one.matching, other) == 0 for one in found)
        assert all(one.matching.random[other] == (0, 0) for one in found)
    assert not clip.splices
    assert torch.equal(clip.encode_image(images), before[0])
    assert torch.equal(clip.encode_text(tokens), before[1])


@torch.no_grad()
def test_random_directions_take_out_as_much_at_the_same_places() -> None:
    clip, images, tokens = tiny()
    hook = "vision.hook_embedding"
    sae = dictionary(clip.width(cliplens.sites.Site.parse(hook)), hook)
    (found,) = causal_effects(clip, images, tokens, [sae], [2], n_random=3, seed=4)
    x = clip.encode_image(images, normalize=True)
    codes = torch.relu(x @ sae.W_enc + sae.b_enc)[:, 2]
    scale, text = float(clip.model.logit_scale.exp()), clip.encode_text(tokens, normalize=True)
    g = torch.Generator().manual_seed(4 * 1_000_003 + 2)
    slow_effects = []
    for _ in range(3):
        along = torch.randn(x.shape[1], generator=g, dtype=torch.float64)
        moved = x - (codes * sae.W_dec[2].norm())[:, None] * along / along.norm()
        slow_effects.append(
            pair_log_probability(normalize(moved, dim=1), text, scale)
            - pair_log_probability(normalize(x, dim=1), text, scale)
        )
    assert found.matching.random["image"] == pytest.approx((np.mean(slow_effects), np.std(slow_effects)), abs=1e-10)


@torch.no_grad()
def test_at_the_embedding_it_is_the_formula_on_embeddings() -> None:
    clip, images, tokens = tiny()
    saes = [dictionary(32, f"{side}.hook_embedding") for side in ("vision", "text")]
    found = causal_effects(clip, images, tokens, saes, [0, 5], n_random=0)
    x, y = clip.encode_image(images, normalize=True), clip.encode_text(tokens, normalize=True)
    for one in found:
        codes = [torch.relu(v @ saes[0].W_enc + saes[0].b_enc)[:, one.latent] for v in (x, y)]
        scale = float(clip.model.logit_scale.exp())
        simple = causal_effect(x, y, *codes, saes[0].W_dec[one.latent], scale=scale, n_random=0)
        assert (one.matching.image, one.matching.text, one.matching.both) == pytest.approx(
            (simple.image, simple.text, simple.both), abs=1e-10
        )


@torch.no_grad()
def test_zero_shot_by_hand() -> None:
    clip, images, tokens = tiny()
    prompts, labels = tiny_tokens(3, seed=9), torch.arange(N) % 3
    saes = [dictionary(32, f"{side}.hook_embedding") for side in ("vision", "text")]
    scale = float(clip.model.logit_scale.exp())

    def score(x: Tensor, p: Tensor) -> float:
        logits = (scale * normalize(x, dim=1) @ normalize(p, dim=1).T).log_softmax(1)
        return float(np.mean([float(logits[m, labels[m]]) for m in range(N)]))

    def less(x: Tensor, k: int) -> Tensor:
        return x - torch.relu(x @ saes[0].W_enc + saes[0].b_enc)[:, k, None] * saes[0].W_dec[k]

    x, p = clip.encode_image(images, normalize=True), clip.encode_text(prompts, normalize=True)
    for one in causal_effects(clip, images, tokens, saes, range(6), classes=(prompts, labels), n_random=1):
        k = one.latent
        expected = score(less(x, k), p), score(x, less(p, k)), score(less(x, k), less(p, k))
        assert one.zero_shot is not None
        found = one.zero_shot.image, one.zero_shot.text, one.zero_shot.both
        assert found == pytest.approx([e - score(x, p) for e in expected], abs=1e-10)


def planted() -> tuple[HookedCLIP, Tensor, Tensor, list[StandardSAE]]:
    """A model whose embeddings are sums of known atoms: 0-7 in both, 8-10 in images alone, 11-13 in captions alone."""
    model = tiny_model().double()
    images, tokens = tiny_images(40).double(), tiny_tokens(40)
    g = torch.Generator().manual_seed(0)
    atoms = torch.linalg.qr(torch.randn(32, 32, generator=g, dtype=torch.float64)).Q[:14]
    shared = torch.rand(40, 8, generator=g, dtype=torch.float64) * (torch.rand(40, 8, generator=g) < 0.4)
    alone = torch.rand(2, 40, 3, generator=g, dtype=torch.float64) * 0.5
    codes = {
        "image": torch.cat([shared, alone[0], torch.zeros(40, 3).double()], 1),
        "text": torch.cat([shared, torch.zeros(40, 3).double(), alone[1]], 1),
    }
    with torch.no_grad():
        for side, owner, name in (("image", model.visual, "proj"), ("text", model, "text_projection")):
            kept = getattr(owner, name)
            setattr(owner, name, None)
            seen = model.encode_image(images) if side == "image" else model.encode_text(tokens)
            kept.copy_(torch.linalg.lstsq(seen, codes[side] @ atoms, driver="gelsd").solution)
            setattr(owner, name, kept)
    saes = [dictionary(32, f"{tower}.hook_embedding", 14, bias=-1e-6) for tower in ("vision", "text")]
    for sae in saes:
        with torch.no_grad():
            sae.W_dec.copy_(atoms)
            sae.W_enc.copy_(atoms.T)
            sae.b_dec.zero_()
    return cliplens.wrap(model), images, tokens, saes


def test_planted_atoms_come_back() -> None:
    clip, images, tokens, saes = planted()
    found = causal_effects(clip, images, tokens, saes, range(14), n_random=10)
    modality = np.array([one.modality for one in found])
    assert (np.abs(modality[:8] - 0.5) < 0.35).all()
    assert (modality[8:11] > 0.95).all()
    assert (modality[11:] < 0.05).all()
    for one in found[:8]:
        for tower in ("image", "text"):
            assert one.matching.beyond_random(tower) < -one.matching.random[tower][1]


def test_refusals() -> None:
    clip, images, tokens = tiny()
    sae = dictionary(32, "vision.hook_embedding")
    with pytest.raises(InputError, match=r"a latent from 0 to 5, but found 6"):
        causal_effects(clip, images, tokens, [sae], [6])
    with pytest.raises(InputError, match="12 images and 3 captions"):
        causal_effects(clip, images, tokens[:3], [sae], [0])
    with pytest.raises(InputError, match="1 images and 1 captions"):
        causal_effects(clip, images[:1], tokens[:1], [sae], [0])
    (two,) = causal_effects(clip, images[:2], tokens[:2], [sae], [5], n_random=2)
    assert np.isfinite(two.matching.image)
    other = dictionary(64, "vision.blocks.0.hook_resid_post")
    with pytest.raises(InputError, match="at most one dictionary per tower"):
        causal_effects(clip, images, tokens, [sae, other], [0])
